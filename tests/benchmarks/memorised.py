"""Labels of clients whose model knows the adversary's examples better than theirs.

    uv run python -m tests.benchmarks.memorised --trials 10

An MLP of 64 units is trained by SGD (lr 0.1, momentum 0.9, batches of 32) on digits: those that the
adversary has, or others. Then a client with new digits uploads one gradient of 64, or an epoch of
64. Prints a Markdown table: mean ASR in % with its standard error, and the median misfit.
"""

import argparse
from collections.abc import Iterator
from statistics import mean, median, stdev

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from adversary.attacks import ATTACKS
from adversary.attacks.eb_gls import eb_gls, solve
from adversary.workspace import workspace
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import asr, client
from tests.benchmarks.record import record

CLASSES, SIZE = 10, 64
PROTOCOLS = {
    "one gradient": LocalTraining(lr=0.1, batch_size=SIZE, upload="gradient"),
    "an epoch": LocalTraining(lr=0.05, batch_size=16, upload="weights"),
}


def digits() -> tuple[Tensor, Tensor]:
    """Return inputs of shape (n, 64) in [0, 1], and labels, in an order of their own."""
    inputs, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=generator(0, "digits"))
    return torch.tensor(inputs / 16, dtype=torch.float32)[order], torch.tensor(labels)[order]


def trained(inputs: Tensor, labels: Tensor, steps: int, seed: int) -> nn.Module:
    """Return a model after some steps on examples."""
    with global_stream(seed, "model"):
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    stream = generator(seed, "steps")
    descent = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(steps):
        batch = torch.randint(len(labels), (32,), generator=stream)
        descent.zero_grad()
        functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
        descent.step()
    return model


def drawn(labels: Tensor, seed: int, *, even: bool) -> Tensor:
    """Return places of a client's examples: even labels, or Dirichlet ones of concentration 0.5."""
    stream, share = generator(seed, "client"), torch.ones(CLASSES)
    if not even:
        share = torch._sample_dirichlet(0.5 * share, generator=stream).clamp(min=1e-12)
    return torch.multinomial(share[labels], SIZE, replacement=True, generator=stream)


def answers(
    protocol: str, steps: int, seed: int, *, even: bool, memorised: bool
) -> Iterator[tuple[str, float]]:
    """Yield each attack's ASR in %, and the misfit, for one client."""
    inputs, labels = digits()
    known, others, theirs = (slice(0, 300), slice(300, 600), slice(600, None))
    fitted = known if memorised else others
    model = trained(inputs[fitted], labels[fitted], steps, seed)
    mine = drawn(labels[theirs], seed, even=even)
    truth = torch.bincount(labels[theirs][mine], minlength=CLASSES)
    view = client(model, inputs[theirs][mine], labels[theirs][mine], PROTOCOLS[protocol])
    auxiliary = Auxiliary(model, CLASSES, inputs=inputs[known], labels=labels[known])
    stream = generator(seed, "infer")
    yield "search", 100 * asr(eb_gls(view, auxiliary, stream, refine="search"), truth)
    for name in ("eb-gls", "llbg", "uniform"):
        yield name, 100 * asr(ATTACKS[name].infer(view, auxiliary, stream), truth)
    yield "misfit", solve(view.latest, workspace(view, auxiliary))[1].misfit


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    trials = parser.parse_args().trials
    torch.set_num_threads(1)
    print("| upload, model, labels | most likely | `eb-gls` | `llbg` | `uniform` | misfit |")
    print("| --- |" + " --- |" * 5)
    places = [
        (protocol, steps, memorised, even)
        for protocol in PROTOCOLS
        for steps, memorised in ((0, False), (100, False), (300, False), (100, True), (300, True))
        for even in (False, True)
    ]
    for protocol, steps, memorised, even in places:
        rows: dict[str, list[float]] = {}
        for seed in range(trials):
            for name, value in answers(protocol, steps, seed, even=even, memorised=memorised):
                rows.setdefault(name, []).append(value)
        title = f"{protocol}, {steps} steps on {'its' if memorised else 'other'} digits, "
        title += "even" if even else "uneven"
        misfit = median(rows.pop("misfit"))
        cells = [f"{mean(v):.1f} ± {stdev(v) / trials**0.5:.1f}" for v in rows.values()]
        print(f"| {title} | {' | '.join(cells)} | {misfit:.1f} |", flush=True)
        record("memorised", {f"{title}: {name}, ASR, %": mean(v) for name, v in rows.items()})


if __name__ == "__main__":
    main()
