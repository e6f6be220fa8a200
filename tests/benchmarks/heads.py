"""What label attacks read of models that end in many different ways, on the embedded digits.

    uv run python -m tests.benchmarks.heads --trials 20
    uv run python -m tests.benchmarks.heads --trials 3 --only "an epoch"
    uv run python -m tests.benchmarks.heads --trials 20 --read

A small CNN, 32 or 80 examples of a client whose classes are uneven (ASR of even counts beside it);
the adversary has 600 other digits. Untrained and after 150 central steps, a gradient of one batch
and one epoch of local training in batches of 16. ASR in %, and the CPU time of one answer, the
first of its model sent. With
`--read`, the attacks that read a head, on heads without a bias to read and on one logit, whose two
classes are the digits below five and the others.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.attacks import ATTACKS
from fedsim.config import Data
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import gradients
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.data.load import load
from fedsim.models.guard import guarded
from tests.adversary.heads import TEN, FrozenBias, NoBias, OneLogit
from tests.adversary.label_cases import asr, client
from tests.benchmarks.record import record

KNOWN = 600
STEPS = 150
GRADIENT = LocalTraining(lr=0.1, batch_size=32, upload="gradient"), 32
EPOCH = LocalTraining(lr=0.05, batch_size=16, upload="weights"), 80
SETTINGS = {
    "untrained, one gradient": (0, *GRADIENT),
    "trained, one gradient": (STEPS, *GRADIENT),
    "trained, an epoch": (STEPS, *EPOCH),
}


READ = ("ilrg", "llbg", "rlu", "eb-gls", "uniform")


def model_of(kind: type[nn.Module], seed: int, classes: int = 10) -> nn.Module:
    """Return a CNN of 20,000 parameters that ends in some way."""
    with global_stream(seed, "model"):
        body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(),
        )  # fmt: skip
        return guarded(kind(body, 32, 64, classes), torch.float32, binary=classes == 2)


def trained(model: nn.Module, steps: int, inputs: Tensor, labels: Tensor) -> nn.Module:
    """Take central steps on batches of 32, at rate 0.1."""
    stream = generator(1, "train")
    parameters = {n: v for n, v in model.named_parameters() if v.requires_grad}
    for _ in range(steps):
        rows = torch.randint(len(labels), (32,), generator=stream)
        loss = functional.cross_entropy(model(inputs[rows]), labels[rows])
        slopes = gradients(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(list(parameters.values()), slopes, alpha=-0.1)
    return model


def uneven(labels: Tensor, size: int, seed: int) -> Tensor:
    """Return rows whose classes are uneven."""
    stream = generator(seed, "client")
    share = torch.rand(int(labels.max()) + 1, generator=stream).pow(4) + 1e-3
    drawn = torch.multinomial(share, size, replacement=True, generator=stream)
    rows = [torch.nonzero(labels == c)[:, 0] for c in drawn.tolist()]
    return torch.stack([of[torch.randint(len(of), (1,), generator=stream)][0] for of in rows])


def rates(
    kind: type[nn.Module], setting: str, trials: int, attacks: tuple[str, ...]
) -> Iterator[dict[str, float]]:
    """Yield each trial's ASR by attack, and the CPU-seconds of all."""
    dataset = load(Data(name="digits"), 0)
    classes = 2 if kind is OneLogit else 10
    inputs, labels = dataset.inputs, dataset.labels * classes // 10
    known, rest = slice(None, KNOWN), slice(KNOWN, None)
    steps, local, size = SETTINGS[setting]
    for seed in range(trials):
        model = trained(model_of(kind, seed, classes), steps, inputs[known], labels[known])
        rows = uneven(labels[rest], size, seed)
        truth = torch.bincount(labels[rest][rows], minlength=classes)
        view = client(model, inputs[rest][rows], labels[rest][rows], local, seed=seed)
        auxiliary = Auxiliary(model, classes, inputs=inputs[known], labels=labels[known])
        begun = time.process_time()
        guess = {
            name: ATTACKS[name].infer(view, auxiliary, generator(seed, name)) for name in attacks
        }
        spent = time.process_time() - begun
        yield {name: asr(each, truth) for name, each in guess.items()} | {"seconds": spent}


def read(trials: int) -> None:
    """Print what attacks read of heads without a bias to read, and of one logit."""
    print(f"| head | setting | {' | '.join(READ)} |\n| --- | --- |{' --- |' * len(READ)}")
    measured: dict[str, float] = {}
    for kind, setting in product((NoBias, FrozenBias, OneLogit), SETTINGS):
        results = list(rates(kind, setting, trials, READ))
        mean = {name: sum(one[name] for one in results) / trials for name in READ}
        measured |= {f"{kind.__name__}, {setting}, {n}: ASR": value for n, value in mean.items()}
        title, cells = (kind.__doc__ or "").rstrip("."), (f"{100 * mean[n]:.1f}" for n in READ)
        print(f"| {title} | {setting} | {' | '.join(cells)} |", flush=True)
    record("heads", measured)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", default="", help="settings whose name holds this")
    parser.add_argument("--read", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.read:
        read(chosen.trials)
        return
    settings = [setting for setting in SETTINGS if chosen.only in setting]
    columns = " --- |" * (1 + len(settings))
    print(f"| head | {' | '.join(settings)} | CPU-s, the last |\n| --- |{columns}")
    measured: dict[str, float] = {}
    cells: dict[type[nn.Module], list[str]] = {}
    blind: list[float] = []
    for kind, setting in product(TEN, settings):
        results = list(rates(kind, setting, chosen.trials, ("eb-gls", "uniform")))
        mean = {n: sum(one[n] for one in results) / len(results) for n in results[0]}
        measured[f"{kind.__name__}, {setting}: ASR"] = mean["eb-gls"]
        blind.append(mean["uniform"])
        cells.setdefault(kind, []).append(f"{100 * mean['eb-gls']:.1f}")
        if setting == settings[-1]:
            name = (kind.__doc__ or "").rstrip(".")
            print(f"| {name} | {' | '.join(cells[kind])} | {mean['seconds']:.2f} |", flush=True)
    print(f"\nEven counts: {100 * sum(blind) / len(blind):.1f} %.")
    record("heads", measured)


if __name__ == "__main__":
    main()
