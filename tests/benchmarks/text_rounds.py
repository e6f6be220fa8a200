"""What attacks on a round of language models cost beside its training, and what they read.

    uv run python -m tests.benchmarks.text_rounds --rounds 4 --seeds 0 1
    uv run python -m tests.benchmarks.text_rounds --vocabulary 50000 --seeds 0 1 2 3

SMS messages, a GPT of width 128 and 1,024 tokens, eight clients of 16 texts; `token-rows`,
`row-bayes` and `positions` attack every client in every round. The cost is the CPU time of a run
with these attacks less that of the same run without, over that of the run without, in the rounds
after the first. Needs the folder of data.

With --vocabulary, instead, `row-bayes` on gradients of 20 random texts, whose tokens follow Zipf's
law, of an initial model with so many tokens; 400 other such texts are auxiliary.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adversary.attacks.row_bayes import row_bayes
from adversary.grading import counts
from adversary.text.reading import target_moments
from adversary.workspace import workspace
from fedsim import api, models
from fedsim.config import Config, parse
from fedsim.core.form import IGNORED, Form
from fedsim.core.ground_truth import Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.core.vocabulary import BOS, EOS, Vocabulary
from tests.benchmarks.record import record

LENGTH = 32
ATTACKS = ("token-rows", "row-bayes", "positions")
PROTOCOLS: Mapping[str, Mapping[str, object]] = {
    "gradients": {"strategy": "fedsgd", "batch_size": 16},
    "one step": {"batch_size": 16},
    "four steps": {"batch_size": 4},
    "gaussian 1e-3": {"batch_size": 16, "defense": [{"name": "gaussian", "std": 1e-3}]},
}
COLUMNS = (("token-rows", "f1"), ("row-bayes", "asr"))


def config(protocol: str, *, rounds: int, seed: int, attacks: Sequence[str]) -> Config:
    """Return one run."""
    chosen = dict(PROTOCOLS[protocol])
    strategy, defense = chosen.pop("strategy", "fedavg"), chosen.pop("defense", [])
    upload = "gradient" if strategy == "fedsgd" else "weights"
    return parse({
        "seed": seed,
        "data": {"name": "sms-spam", "limit": 512, "partition": "iid"},
        "model": {"name": "gpt"},
        "federation": {
            "clients": 8, "rounds": rounds, "strategy": strategy, "evaluate_every": 0,
        },
        "local": {"lr": 0.3, "epochs": 1, "upload": upload, **chosen},
        "auxiliary": {"share": 0.75, "knows_defense": False},
        "defense": defense,
        "attack": list(attacks),
    })  # fmt: skip


def run(asked: Config, folder: Path) -> tuple[float, api.Run]:
    """Return the CPU-seconds of a round after the first, and the run."""
    marks: list[float] = []
    done = api.run(asked, folder, on_round=lambda _: marks.append(time.process_time()))
    return float(np.diff(marks).mean()), done


def measured(protocol: str, rounds: int, seed: int) -> dict[str, float]:
    """Return CPU-seconds of a round without attacks and their share, and what attacks read."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        asked = [config(protocol, rounds=rounds, seed=seed, attacks=a) for a in ((), ATTACKS)]
        training, _ = run(asked[0], Path(folder) / "plain")
        attacked, done = run(asked[1], Path(folder) / "attacked")
        figures["a round's training: CPU-s"] = training
        figures["attacks' share"] = attacked / training - 1
        rows = done.ledger().to_pylist()
    for attack, metric in COLUMNS:
        values = [r for r in rows if (r["attack"], r["metric"]) == (attack, metric)]
        for name, key in ((f"{attack} {metric}", "value"), (f"{attack} blind", "blind")):
            figures[name] = float(np.mean([r[key] for r in values if r["client"] is not None]))
    return figures


def zipf_texts(size: int, count: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of texts of 10 to 31 tokens."""
    inputs = torch.zeros(count, LENGTH, dtype=torch.int64)
    targets = torch.full((count, LENGTH), IGNORED)
    rates = 1 / torch.arange(1, size - 2).double()
    for row in range(count):
        length = int(torch.randint(10, LENGTH, (), generator=stream))
        ids = 3 + torch.multinomial(rates, length, replacement=True, generator=stream)
        inputs[row, : length + 1] = torch.cat([torch.tensor([BOS]), ids])
        targets[row, : length + 1] = torch.cat([ids, torch.tensor([EOS])])
    return inputs, targets


def large(size: int, seeds: Sequence[int]) -> dict[str, float]:
    """Return CPU-seconds of an upload and of what a round shares, and what is read."""
    form, stream = Form((LENGTH,), size, torch.int64, size, per_token=True), generator(0, "zipf")
    model = models.build(parse({"model": {"name": "gpt"}}).model, form, seed=0)
    inputs, labels = zipf_texts(size, 400, stream)
    words = Vocabulary(tuple(b"" if id_ < 3 else b"%d" % id_ for id_ in range(size)))
    auxiliary = Auxiliary(
        model, size, inputs=inputs, labels=labels, input_shape=(LENGTH,), vocabulary=words,
        per_token=True,
    )  # fmt: skip
    sent, memory = {name: it.detach().clone() for name, it in model.state_dict().items()}, Memory()
    local, each = LocalTraining(lr=0.1, batch_size=20, upload="gradient"), list[tuple[float, ...]]()
    for seed in seeds:
        texts, targets = zipf_texts(size, 20, generator(seed, "zipf client"))
        loss = torch.nn.functional.cross_entropy(model(texts), targets)
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        delta = dict(zip(dict(model.named_parameters()), slopes, strict=True))
        view = View([Observation(sent, Update(1, str(seed), delta, 20), local)], memory=memory)
        begun = time.process_time()
        workspace(view, auxiliary).part(target_moments)
        shared = time.process_time()
        guess = row_bayes(view, auxiliary, generator(0))
        spent, truth = time.process_time() - shared, targets[targets != IGNORED]
        asr = counts.grade(guess, Truth(truth, torch.arange(20)))["asr"]
        each.append((shared - begun, spent, asr, abs(int(guess.sum()) / len(truth) - 1)))
    rest = np.array(each)[1:].mean(axis=0)  # the first call finds the tables
    names = ("an upload: CPU-s", "row-bayes asr", "error of N")
    return {"a round's moments: CPU-s": each[0][0], **dict(zip(names, rest[1:], strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS))
    parser.add_argument("--vocabulary", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.vocabulary:
        figures = large(given.vocabulary, given.seeds)
        print("\n".join(f"{name}: {value:.3f}" for name, value in figures.items()))
        record("text_rounds", {f"V = {given.vocabulary}: {n}": v for n, v in figures.items()})
        return
    with tempfile.TemporaryDirectory() as folder:  # imports
        run(config("one step", rounds=2, seed=0, attacks=ATTACKS), Path(folder) / "first")
    for protocol in given.protocols:
        each = [measured(protocol, given.rounds, seed) for seed in given.seeds]
        names = list(each[0])
        if protocol == given.protocols[0]:
            print(f"| protocol | {' | '.join(names)} |\n{'| --- ' * (len(names) + 1)}|")
        means = {name: float(np.mean([one[name] for one in each])) for name in names}
        cells = " | ".join(f"{means[name]:.3f}" for name in names)
        print(f"| {protocol} | {cells} |", flush=True)
        record("text_rounds", {f"{protocol}: {key}": value for key, value in means.items()})


if __name__ == "__main__":
    main()
