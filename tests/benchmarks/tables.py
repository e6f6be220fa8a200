"""Records of Adult and heart disease recovered from updates: cells, whole records, confidence.

    uv run python -m tests.benchmarks.tables TABLE [--data NAME] [--batches N]

Each batch is of other records and another network, as initialised by torch; a tenth of the records
(Adult: 3,000) is auxiliary. Beside each value stand the blind record (mode or mean of each column),
records drawn from the auxiliary ones, and the most that an auxiliary record shares with each true
one; a run's blind value is the better of the first two. `±` is the standard error over batches.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from adversary.attacks import ATTACKS
from adversary.grading import records
from adversary.grading.reconstructions import blank, bounds, checked
from clients.train import train
from fedsim.core.errors import NotApplicable
from fedsim.core.ground_truth import Lineup, Records, Truth
from fedsim.core.memory import Memory
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View
from fedsim.data.adult import adult
from fedsim.data.heart_disease import heart_disease
from fedsim.data.types import Dataset
from tests.benchmarks.record import record
from tests.builders import observe, plain_gradient
from tests.real_data import present

LOADERS = {"adult": adult, "heart-disease": heart_disease}
HIDDEN = {"mlp": (100, 100), "logistic": ()}
BATCHES = 20  # of each size
SAME = {"restarts": 5, "iterations": 500, "optimiser": "signed", "lr": 0.1, "start": "uniform"}
PAPER = {"restarts": 30, "iterations": 1500, "lr": 0.06, "sharpness": 0.0}
RIVALS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "tab-leak": ("tab-leak", {}),
    "analytic": ("analytic", {}),
    "spear": ("spear", {}),
}
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
Line = tuple[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Table:
    """A data set, and what reconstructions of it are graded with."""

    data: Dataset
    auxiliary: Tensor
    private: Tensor
    of: Records
    memory: Memory

    def truth(self, rows: Tensor) -> Truth:
        inputs = self.data.inputs
        low, high = bounds(inputs)
        lineup = Lineup(
            examples=inputs,
            others=torch.arange(0),
            blank=blank(inputs[self.auxiliary], tuple(inputs.shape[1:])),
            low=low,
            high=high,
            records=self.of,
            memory=Memory(self.memory),
        )
        return Truth(self.data.labels[rows], rows, inputs=inputs[rows], lineup=lineup)


@dataclass(frozen=True, eq=False)
class Case:
    """One client's upload."""

    view: View
    auxiliary: Auxiliary
    truth: Truth


@lru_cache
def table(name: str) -> Table:
    data = LOADERS[name](present(name))
    order = torch.randperm(len(data.labels), generator=generator(0, "table", name))
    held = len(order) // 10
    schema = data.schema
    assert schema is not None
    of = Records(schema, schema.tolerances(data.inputs), order[:held])
    return Table(data, order[:held], order[held:], of, Memory())


def network(model: str, features: int, place: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    with global_stream(place, "network", model):
        for width in HIDDEN[model]:
            layers += [nn.Linear(features, width), nn.ReLU()]
            features = width
        return nn.Sequential(*layers, nn.Linear(features, 2))


def case(
    name: str, model: str, place: int, size: int, *, epochs: int = 0, noise: float = 0.0
) -> Case:
    """Return one upload: a gradient, or after `epochs` of steps on batches of 4 the weights."""
    of = table(name)
    rows = of.private[place * size : (place + 1) * size]
    x, y = of.data.inputs[rows], of.data.labels[rows]
    net = network(model, x.shape[1], place)
    local = LocalTraining(lr=0.1, batch_size=4, epochs=epochs) if epochs else None
    if local is None:
        upload = plain_gradient(net, x, y)
    else:
        sent = {n: v.clone() for n, v in net.state_dict().items()}
        state, _ = train(net, dict(sent), x, y, local, generator=generator(0, "local", place))
        upload = subtract(state, sent)
        net.load_state_dict(sent)
    stream = generator(0, "noise", place)
    upload = {n: v + noise * torch.randn(v.shape, generator=stream) for n, v in upload.items()}
    view = observe(upload, size, sent=net, **({} if local is None else {"local": local}))
    held = of.auxiliary
    auxiliary = Auxiliary(
        net, 2, inputs=of.data.inputs[held], labels=of.data.labels[held], schema=of.data.schema
    )
    return Case(view, auxiliary, of.truth(rows))


def graded(it: Case, attack: str, options: dict[str, Any], place: int) -> dict[str, float]:
    """Return the values of an answer, and its CPU-seconds; of a refusal, those of no answer."""
    begun = time.process_time()
    try:
        answer = ATTACKS[attack].infer(it.view, it.auxiliary, generator(0, place), **options)
    except (NotApplicable, ValueError):
        answer = it.auxiliary.inputs[:0]  # pyright: ignore[reportOptionalSubscript]
    spent = time.process_time() - begun
    guess = checked(answer, it.auxiliary)
    values = records.pool([guess], [it.truth]) | {"CPU-s": spent, "answers": float(len(guess) > 0)}
    if isinstance(answer, Estimate):
        (area, _), *_ = records.grade_confidence(guess, answer.uncertainty, it.truth).values()
        values["confidence_auroc"] = area
    return values


def baselines(it: Case, place: int) -> dict[str, float]:
    """Return the cell accuracy of what needs no update."""
    truth, inputs = it.truth, it.auxiliary.inputs
    assert inputs is not None
    blind = records.compared(inputs[:0], truth)
    drawn = torch.randperm(len(inputs), generator=generator(0, "drawn", place))
    random = records.pool([inputs[drawn[: len(truth.indices)]]], [truth])
    return {
        "blind": float(blind.right.double().mean()),
        "random auxiliary": random["cell_accuracy"],
        "nearest auxiliary": float(blind.nearest.mean()) / blind.right.shape[1],
    }


def mean(values: list[float]) -> tuple[float, float]:
    of = torch.tensor(values, dtype=torch.float64)
    of = of[~of.isnan()]
    if not len(of):
        return float("nan"), float("nan")
    error = float(of.std() / len(of) ** 0.5) if len(of) > 1 else float("nan")
    return float(of.mean()), error


def line(label: str, rows: list[dict[str, float]]) -> Line:
    texts, figures = [], {}
    for name in dict.fromkeys(name for row in rows for name in row):
        value, error = mean([row[name] for row in rows if name in row])
        share = name != "CPU-s"
        texts.append(f"{name} {value:.3f} ± {error:.3f}" if share else f"{name} {value:.2f}")
        figures[f"{label}: {name}"] = value
        if share:
            figures[f"{label}: {name}, standard error"] = error
    return f"{label} ({len(rows)} batches): {'; '.join(texts)}", figures


def compare(label: str, cases: list[Case], rivals: Mapping[str, tuple[str, Any]]) -> Iterator[Line]:
    yield line(f"{label}, no update", [baselines(it, place) for place, it in enumerate(cases)])
    for name, (attack, options) in rivals.items():
        rows = [graded(it, attack, options, place) for place, it in enumerate(cases)]
        yield line(f"{label}, {name}", rows)


def small(name: str, batches: int | None) -> Iterator[Line]:
    """By size of the batch, behind two layers of 100 units."""
    yield from _sizes(name, (1, 2, 4), batches)


def large(name: str, batches: int | None) -> Iterator[Line]:
    """By size of the batch, behind two layers of 100 units."""
    yield from _sizes(name, (8, 16, 32), batches)


def _places(name: str, size: int, batches: int | None) -> range:
    """Return the places of batches of other records: of a small data set there are fewer."""
    return range(min(batches or BATCHES, len(table(name).private) // size))


def _sizes(name: str, sizes: Sequence[int], batches: int | None) -> Iterator[Line]:
    for size in sizes:
        cases = [case(name, "mlp", place, size) for place in _places(name, size, batches)]
        yield from compare(f"{name} mlp B={size}", cases, RIVALS)


def logistic(name: str, batches: int | None) -> Iterator[Line]:
    """By size of the batch, of logistic regression."""
    rivals = {attack: RIVALS[attack] for attack in ("tab-leak", "analytic")}
    for size in (1, 2, 4, 8, 16, 32):
        cases = [case(name, "logistic", place, size) for place in _places(name, size, batches)]
        yield from compare(f"{name} logistic B={size}", cases, rivals)


def settings(name: str, batches: int | None) -> Iterator[Line]:
    """Of the attack on 8 records: its own, the paper's, and matching without columns."""
    rivals = {
        "tab-leak": ("tab-leak", {}),
        "tab-leak as in the paper": ("tab-leak", PAPER),
        "tab-leak, one member": ("tab-leak", {"restarts": 1}),
        "tab-leak, labels joint": ("tab-leak", {"labels": "joint"}),
        "inverting-gradients": ("inverting-gradients", SAME),
    }
    cases = [case(name, "mlp", place, 8) for place in range(batches or 3)]
    yield from compare(f"{name} mlp B=8", cases, rivals)


def local(name: str, batches: int | None) -> Iterator[Line]:
    """FedAvg: 8 records in steps of 4, at lr 0.1."""
    only = {"tab-leak": RIVALS["tab-leak"]}
    for epochs in (1, 5):
        cases = [case(name, "mlp", place, 8, epochs=epochs) for place in range(batches or BATCHES)]
        yield from compare(f"{name} mlp FedAvg 8 records, {epochs} epochs", cases, only)


def noise(name: str, batches: int | None) -> Iterator[Line]:
    """Gaussian noise on the gradient of 4 records."""
    only = {"tab-leak": RIVALS["tab-leak"], "analytic": RIVALS["analytic"]}
    for std in (0.0, 0.01, 0.1):
        cases = [case(name, "mlp", place, 4, noise=std) for place in _places(name, 4, batches)]
        yield from compare(f"{name} mlp B=4 noise {std:g}", cases, only)


def confidence(name: str, batches: int | None) -> Iterator[Line]:
    """Accuracy of cells by confidence, which is the agreement of the ensemble."""
    for size in (16, 32):
        parts, areas = [], []
        for place in _places(name, size, batches):
            it = case(name, "mlp", place, size)
            answer = ATTACKS["tab-leak"].infer(it.view, it.auxiliary, generator(0, place))
            of = answer.values, answer.uncertainty, it.truth
            parts.append(records.confidence(*of))
            areas.append({"AUROC": records.grade_confidence(*of)[records.CONFIDENCE][0]})
        yield line(f"{name} mlp B={size}", areas)
        sure, right = (torch.cat(values) for values in zip(*parts, strict=True))
        bins = torch.bucketize(sure, torch.tensor(EDGES[1:-1], dtype=sure.dtype), right=True)
        for at, low in enumerate(EDGES[:-1]):
            of = right[bins == at].double()
            label = f"{name} mlp B={size}, confidence {low:g} to {EDGES[at + 1]:g}"
            share = float(of.mean()) if len(of) else float("nan")
            yield (
                f"{label}: {len(of)} cells, {share:.3f} right",
                {f"{label}: cells": float(len(of)), f"{label}: right": share},
            )


def labels(name: str, batches: int | None) -> Iterator[Line]:
    """Labels of a label attack, and labels that are fitted with the records."""
    rivals = {"tab-leak": ("tab-leak", {}), "labels joint": ("tab-leak", {"labels": "joint"})}
    for size in (2, 4, 8, 16, 32):
        cases = [case(name, "mlp", place, size) for place in _places(name, size, batches)]
        yield from compare(f"{name} mlp B={size}", cases, rivals)


TABLES = {
    "small": small,
    "large": large,
    "logistic": logistic,
    "settings": settings,
    "local": local,
    "noise": noise,
    "confidence": confidence,
    "labels": labels,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--data", choices=list(LOADERS), default="adult")
    parser.add_argument("--batches", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for text, figures in TABLES[options.table](options.data, options.batches):
        print(text, flush=True)
        record("tables", figures)


if __name__ == "__main__":
    main()
