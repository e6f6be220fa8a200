"""Every label attack in every setting of papers/label.md, section 3.5, in one run.

    uv run python -m tests.benchmarks.labels --trials 20 [--only trained] [--attacks llg,eb-gls]

Prints ASR / exact (%), or skill with --skill, and the CPU time of one attack.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor, nn

from adversary.attacks import ATTACKS
from adversary.grading.families import FAMILIES
from clients.train import train
from fedsim import models
from fedsim.config import Model
from fedsim.core.form import Form
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, View
from tests.benchmarks.record import record
from tests.builders import observe, prune
from tests.real_data import cifar_part, mnist

AUXILIARY_PER_CLASS = 100
LABEL = [
    name for name, attack in ATTACKS.items() if attack.family == "label" and attack.kinds is None
]


@dataclass(frozen=True)
class Cell:
    """One setting.

    Attributes:
        model: Name and options, as in a config.
        data: "mnist", "cifar" or "synth" (100 Gaussian classes).
        steps: Central steps before the attacked round; 0 is untrained.
        batch: Examples of a central step.
        labels: "iid", "unb" (half of one class, a quarter of another) or a Dirichlet α.
        size: Examples of the client.
        local: Gradient of one batch without, else local training.
        pruned: Share of every tensor's entries that the client zeroes, smallest first.
        noise: Standard deviation of noise on every coordinate of the gradient.
    """

    name: str
    model: str = "lenet5"
    data: str = "mnist"
    steps: int = 0
    batch: int = 32
    labels: str = "unb"
    size: int = 128
    local: LocalTraining | None = None
    pruned: float = 0.0
    noise: float = 0.0


def fedavg(size: int, batch_size: int, epochs: int, lr: float, **options) -> dict:
    return {
        "size": size,
        "local": LocalTraining(lr=lr, batch_size=batch_size, epochs=epochs, **options),
    }


def _spread(name: str, **options) -> list[Cell]:
    return [Cell(f"{name} {kind}", labels=kind, **options) for kind in ("iid", "unb", "0.5")]


ONE_STEP = [
    Cell("untrained unb 128"),
    Cell("untrained iid 128", labels="iid"),
    Cell("sigmoid untrained unb 128", "lenet"),
    Cell("tanh untrained iid 128", "mlp-tanh", labels="iid"),
    Cell("C=100 untrained dir.1 1024", "mlp", "synth", labels="0.1", size=1024),
    Cell("trained 200 iid 8", steps=200, labels="iid", size=8),
    Cell("trained 200 unb 8", steps=200, size=8),
    Cell("trained 200 unb 32", steps=200, size=32),
    Cell("trained 200 unb 128", steps=200),
    Cell("trained 200 iid 128", steps=200, labels="iid"),
    Cell("trained 1000 unb 128", steps=1000),
    Cell("tanh trained 100 unb 8", "mlp-tanh", steps=100, size=8),
    Cell("cifar trained 1500 iid 8", data="cifar", steps=1500, labels="iid", size=8),
    Cell("cifar trained 1500 unb 128", data="cifar", steps=1500),
    Cell("C=100 trained iid 32", "mlp", "synth", steps=400, labels="iid", size=32),
    Cell("C=100 trained dir.1 1024", "mlp", "synth", steps=400, labels="0.1", size=1024),
]
SEVERAL_STEPS = [
    *_spread("lenet5 64,8,1,.05", **fedavg(64, 8, 1, 0.05)),
    *_spread("lenet5 64,8,5,.05", **fedavg(64, 8, 5, 0.05)),
    *_spread("lenet5 64,8,10,.05", **fedavg(64, 8, 10, 0.05)),
    *_spread("lenet5 64,16,10,.1", **fedavg(64, 16, 10, 0.1)),
    *_spread("cnn 100,10,10,.02", model="cnn", **fedavg(100, 10, 10, 0.02)),
    *_spread("lenet 80,8,1,.001", model="lenet", **fedavg(80, 8, 1, 0.001)),
    *_spread("lenet 80,8,1,.01", model="lenet", **fedavg(80, 8, 1, 0.01)),
    *_spread("lenet 80,8,1,.1", model="lenet", **fedavg(80, 8, 1, 0.1)),
    *_spread("half-trained 64,8,5,.05", steps=60, **fedavg(64, 8, 5, 0.05)),
    *_spread("trained 64,8,5,.05", steps=200, **fedavg(64, 8, 5, 0.05)),
    *_spread("momentum 64,8,5,.02", **fedavg(64, 8, 5, 0.02, momentum=0.9)),
    *_spread("prox 64,8,5,.05", **fedavg(64, 8, 5, 0.05, proximal_mu=1.0)),
    *_spread("smooth 64,8,5,.05", **fedavg(64, 8, 5, 0.05, label_smoothing=0.1)),
]
DEFENDED = [
    *(Cell(f"pruned {rate} unb {size}", size=size, pruned=rate)
      for size in (64, 8) for rate in (0.8, 0.95, 0.99)),
    *(Cell(f"noise {std} unb 64", size=64, noise=std) for std in (0.01, 0.03, 0.1, 0.3)),
    *(Cell(f"trained noise {std} unb 64", size=64, steps=200, noise=std)
      for std in (0.01, 0.03, 0.1, 0.3)),
]  # fmt: skip
CELLS = {cell.name: cell for cell in (*ONE_STEP, *SEVERAL_STEPS, *DEFENDED)}


@dataclass(frozen=True)
class Pool:
    """Examples of one data set: those clients draw from, and the adversary's."""

    inputs: Tensor
    labels: Tensor
    auxiliary: tuple[Tensor, Tensor]
    num_classes: int


@lru_cache(maxsize=3)
def pool(name: str) -> Pool:
    if name == "synth":
        stream = generator(0, "synth")
        means = torch.randn(100, 64, generator=stream)
        labels = torch.arange(40_000) % 100
        inputs = means[labels] * 0.6 + torch.randn(40_000, 64, generator=stream)
        return Pool(inputs[:30_000], labels[:30_000], (inputs[30_000:], labels[30_000:]), 100)
    dataset = mnist() if name == "mnist" else cifar_part()
    kept = [
        torch.nonzero(dataset.test_labels == c)[:AUXILIARY_PER_CLASS, 0]
        for c in range(dataset.num_classes)
    ]
    rows = torch.cat(kept)
    known = dataset.test_inputs[rows], dataset.test_labels[rows]
    return Pool(dataset.inputs, dataset.labels, known, dataset.num_classes)


@lru_cache(maxsize=64)  # the models of the figures are 60
def global_model(cell: Cell, seed: int) -> tuple[nn.Module, dict[str, Tensor], Auxiliary]:
    """Return the model, its weights after central training, and the adversary."""
    source = pool(cell.data)
    name, _, activation = cell.model.partition("-")
    options = {"name": name, **({"activation": activation} if activation else {})}
    shape = tuple(source.inputs.shape[1:])
    model = models.build(Model(**options), Form(shape, source.num_classes), seed=seed)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    if cell.steps:
        rows = torch.randint(len(source.labels), (cell.steps * cell.batch,),
                             generator=generator(seed, "central"))  # fmt: skip
        local = LocalTraining(lr=0.05 if cell.data == "cifar" else 0.1, batch_size=cell.batch)
        state, _ = train(model, state, source.inputs[rows], source.labels[rows], local,
                         generator=generator(seed, "order"))  # fmt: skip
    inputs, labels = source.auxiliary
    known = Auxiliary(model, source.num_classes, inputs=inputs, labels=labels)
    return model, state, known


def draw(cell: Cell, stream: Generator) -> Tensor:
    """Return the rows of one client."""
    source = pool(cell.data)
    classes, size = source.num_classes, cell.size
    if cell.labels == "iid":
        wanted = torch.randint(classes, (size,), generator=stream)
    elif cell.labels == "unb":
        first, second = torch.randperm(classes, generator=stream)[:2].tolist()
        rest = torch.randint(classes, (size - size // 2 - size // 4,), generator=stream)
        wanted = torch.cat(
            [torch.full((size // 2,), first), torch.full((size // 4,), second), rest]
        )
    else:
        alpha = torch.full((classes,), float(cell.labels))
        share = torch._sample_dirichlet(alpha, generator=stream).clamp(min=1e-12)
        wanted = torch.multinomial(share, size, replacement=True, generator=stream)
    rows = []
    for label, count in enumerate(torch.bincount(wanted, minlength=classes).tolist()):
        own = torch.nonzero(source.labels == label)[:, 0]
        rows.append(own[torch.randperm(len(own), generator=stream)[:count]])
    return torch.cat(rows)


def trial(cell: Cell, seed: int, *, model_seeds: int = 5) -> tuple[View, Auxiliary, Truth]:
    """Return what the server saw of one client, what it knows, and the truth."""
    model, sent, auxiliary = global_model(_central(cell), seed % model_seeds)
    stream = generator(seed, cell.name)
    rows, source = draw(cell, stream), pool(cell.data)
    local = cell.local or LocalTraining(lr=0.1, batch_size=cell.size, upload="gradient")
    state, used = train(
        model, sent, source.inputs[rows], source.labels[rows], local, generator=stream
    )
    delta = state
    if local.upload == "weights":
        delta = {name: state[name] - sent[name] for name in state}
    if cell.pruned:
        delta = prune(delta, cell.pruned)
    if cell.noise:
        delta = {
            k: v + cell.noise * torch.randn(v.shape, generator=stream) for k, v in delta.items()
        }
    view = observe(delta, cell.size, local=local, sent=sent)
    return view, auxiliary, Truth(source.labels[rows[used]], rows[used])


def _central(cell: Cell) -> Cell:
    """Return the part of a cell that decides the global model, to train it once."""
    return Cell("", cell.model, cell.data, cell.steps, cell.batch)


@dataclass(frozen=True)
class Score:
    asr: float
    skill: float
    exact: float
    milliseconds: float


def outcomes(
    cell: Cell, names: Sequence[str], trials: int, *, model_seeds: int = 5
) -> dict[str, Tensor]:
    """Return, per attack that answers, a row (asr, skill, exact, ms) per trial."""
    grade = FAMILIES["label"].grade
    rows: dict[str, list[list[float]]] = {name: [] for name in names}
    for seed in range(trials):
        view, auxiliary, truth = trial(cell, seed, model_seeds=model_seeds)
        for name in names:
            begun = time.process_time()
            try:
                guess = ATTACKS[name].infer(view, auxiliary, generator(seed, name))
            except ValueError:  # e.g. a head without bias
                continue
            spent = 1000 * (time.process_time() - begun)
            grades = grade(guess, truth)
            rows[name].append([grades["asr"], grades["skill"], grades["exact"], spent])
    return {name: torch.tensor(values) for name, values in rows.items() if values}


def measure(cell: Cell, names: Sequence[str], trials: int) -> dict[str, Score]:
    """Return each attack's means over trials, and the median of its time."""
    scores = {}
    for name, table in outcomes(cell, names, trials).items():
        asr, skill, exact, _ = table.mean(dim=0).tolist()
        scores[name] = Score(asr, skill, exact, float(table[:, 3].median()))
    return scores


def figures(cell: str, scores: dict[str, Score]) -> dict[str, float]:
    """Return what is recorded of a setting."""
    return {
        f"{cell}, {name}: {what}": value
        for name, score in scores.items()
        for what, value in (("ASR, %", 100 * score.asr), ("exact, %", 100 * score.exact))
    }


def lines(cells: Sequence[Cell], names: Sequence[str], trials: int, show: Callable[[Score], str]
          ) -> Iterator[str]:  # fmt: skip
    width = max(len(name) for name in names)
    yield f"{'':30}" + "".join(f"{name:>{max(width, 8) + 1}}" for name in names)
    for cell in cells:
        scores = measure(cell, names, trials)
        record("labels", figures(cell.name, scores))
        cells_ = [show(scores[name]) if name in scores else "–" for name in names]
        yield f"{cell.name:30}" + "".join(f"{text:>{max(width, 8) + 1}}" for text in cells_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--attacks", default=",".join(LABEL))
    parser.add_argument("--show", choices=("asr", "skill", "ms"), default="asr")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [cell for name, cell in CELLS.items() if asked.only in name]
    show = {
        "asr": lambda score: f"{100 * score.asr:.1f}/{100 * score.exact:.0f}",
        "skill": lambda score: f"{score.skill:.2f}",
        "ms": lambda score: f"{score.milliseconds:.2f}",
    }[asked.show]
    for line in lines(chosen, asked.attacks.split(","), asked.trials, show):
        print(line, flush=True)


if __name__ == "__main__":
    main()
