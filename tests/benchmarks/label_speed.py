"""CPU time of label attacks per client, each beside its baseline in the same run.

    uv run python -m tests.benchmarks.label_speed [--round]

With --round also 1,000 MNIST clients of 60 images in one round: the attack's share of training.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from adversary.attacks import ATTACKS
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, View
from tests.benchmarks.labels import CELLS, trial
from tests.benchmarks.record import record
from tests.builders import observe, small_config


def milliseconds(function: Callable[[], object], repeats: int = 30) -> float:
    """Return the median CPU time of a call, after one that warms up."""
    function()
    spent = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        spent.append(time.process_time() - begun)
    return 1000 * sorted(spent)[repeats // 2]


def head_of(classes: int, features: int, labels: int) -> tuple[View, Auxiliary]:
    """Return one gradient of a bare linear head."""
    stream = generator(0, "head", classes)
    model = torch.nn.Linear(features, classes)
    inputs = torch.rand(labels, features, generator=stream)
    truth = torch.randint(classes, (labels,), generator=stream)
    loss = torch.nn.functional.cross_entropy(model(inputs), truth)
    gradient = dict(
        zip(("weight", "bias"), torch.autograd.grad(loss, list(model.parameters())), strict=True)
    )
    return observe(gradient, labels, sent=model), Auxiliary(model, classes, input_shape=(features,))


def measured(name: str, view: View, auxiliary: Auxiliary) -> float:
    return milliseconds(lambda: ATTACKS[name].infer(view, auxiliary, generator(0)))


def figures() -> Iterator[tuple[str, float]]:
    """Yield what was measured, in ms or as a ratio."""
    for classes, features, labels in ((10, 84, 64), (1000, 2048, 512)):
        view, auxiliary = head_of(classes, features, labels)
        where = f"C = {classes}, D = {features}"
        yield f"llg, {where}, ms", measured("llg", view, auxiliary)
        yield f"ilrg, {where}, ms", measured("ilrg", view, auxiliary)
    for cell in ("trained 200 unb 128", "C=100 trained dir.1 1024"):
        view, auxiliary, _ = trial(CELLS[cell], 0)
        for name in ("llg-plus", "eb-gls", "eb-gls-gibbs"):
            yield f"{name}, {cell}, ms", measured(name, view, auxiliary)
        warm = measured("llg-plus", view, auxiliary)
        yield f"llg-plus, {cell}: measuring impact for every victim, ×", cold(cell) / warm


def cold(cell: str) -> float:
    """Return LLG+'s time where every victim has a global model of its own."""
    spent = []
    for seed in range(7):
        view, auxiliary, _ = trial(CELLS[cell], seed)
        begun = time.process_time()
        ATTACKS["llg-plus"].infer(view, auxiliary, generator(0))
        spent.append(time.process_time() - begun)
    return 1000 * sorted(spent)[3]


def round_share() -> float:
    """Return seconds of attack over seconds of training, 1,000 clients attacked with LLG."""
    from fedsim import api
    from tests.real_data import SHARED, unpacked

    config = small_config(
        federation={"rounds": 2, "clients": 1000, "evaluate_every": 0},
        data={"name": "mnist", "root": str(unpacked(SHARED / "mnist")), "limit": 60_000},
        model="cnn", local={"lr": 0.05, "batch_size": 16, "epochs": 1}, attack="llg",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        rows = api.run(config, Path(folder) / "run").metrics().to_pylist()
    spent = {
        name: sum(row["value"] for row in rows if row["metric"] == f"{name}_seconds")
        for name in ("attack", "train")
    }
    return spent["attack"] / spent["train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, float] = {}
    for name, value in figures():
        results[name] = value
        print(f"{name:70}{value:10.2f}", flush=True)
    if asked.round:
        share = "llg on 1,000 clients, share of the training time, %"
        results[share] = 100 * round_share()
        print(f"{share:70}{results[share]:10.2f}")
    record("label_speed", results)


if __name__ == "__main__":
    main()
