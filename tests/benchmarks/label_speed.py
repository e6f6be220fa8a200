"""CPU time of label attacks per client, each beside its baseline in the same run.

    uv run python -m tests.benchmarks.label_speed [--round]

With --round also 1,000 MNIST clients of 60 images in one round: the attack's share of training.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from adversary.attacks import ATTACKS
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, View
from tests.benchmarks.labels import CELLS, trial
from tests.benchmarks.record import record
from tests.builders import observe, small_config

READ = ("llg", "llg-plus", "llbg", "ilrg", "zlg-plus", "rlu", "dimitrov", "eb-gls", "eb-gls-sim")


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


def measured(name: str, view: View, auxiliary: Auxiliary, repeats: int = 30) -> float:
    return milliseconds(lambda: ATTACKS[name].infer(view, auxiliary, generator(0)), repeats)


def several(classes: int = 100) -> tuple[View, Auxiliary]:
    """Return what a client of 512 examples and 100 classes uploads after 32 local steps."""
    local = LocalTraining(lr=0.05, batch_size=16, epochs=1)
    cell = replace(CELLS["C=100 trained iid 32"], name="32 steps", size=512, local=local)
    view, auxiliary, _ = trial(cell, 0)
    assert auxiliary.num_classes == classes
    return view, auxiliary


def one_step(classes: int, features: int = 512, labels: int = 512) -> tuple[View, Auxiliary]:
    """Return a gradient of a linear head, and an adversary with ten examples of each class."""
    stream = generator(0, "one step", classes)
    model, means = (
        nn.Linear(features, classes),
        0.3 * torch.randn(classes, features, generator=stream),
    )
    draw = lambda y: (means[y] + torch.randn(len(y), features, generator=stream)).relu()
    truth, known = torch.randint(classes, (labels,), generator=stream), torch.arange(10 * classes)
    loss = nn.functional.cross_entropy(model(draw(truth)), truth)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    view = observe(dict(zip(("weight", "bias"), gradient, strict=True)), labels, sent=model)
    auxiliary = Auxiliary(model, classes, inputs=draw(known % classes), labels=known % classes)
    return view, auxiliary


def figures() -> Iterator[tuple[str, float]]:
    """Yield what was measured, in ms or as a ratio."""
    for classes, features, labels in ((10, 84, 64), (1000, 2048, 512)):
        view, auxiliary = head_of(classes, features, labels)
        where = f"C = {classes}, D = {features}"
        yield f"llg, {where}, ms", measured("llg", view, auxiliary)
        yield f"ilrg, {where}, ms", measured("ilrg", view, auxiliary)
    for name in (name for name, attack in ATTACKS.items() if attack.infer_all is not None):
        alone, among = together(name)
        yield f"{name}, C = 10, one step, alone, ms", alone
        yield f"{name}, one of 200 at once, ms", among
    for cell in ("trained 200 unb 128", "C=100 trained dir.1 1024"):
        view, auxiliary, _ = trial(CELLS[cell], 0)
        for name in ("llg-plus", "eb-gls", "eb-gls-gibbs"):
            yield f"{name}, {cell}, ms", measured(name, view, auxiliary)
        warm = measured("llg-plus", view, auxiliary)
        yield f"llg-plus, {cell}: measuring impact for every victim, ×", cold(cell) / warm
    cases = {f"C = {classes}, one step": one_step(classes) for classes in (10, 100, 1000)}
    for case, (view, auxiliary) in (cases | {"C = 100, 32 steps": several()}).items():
        for name in READ:
            yield f"{name}, {case}, ms", measured(name, view, auxiliary, repeats=3)


def together(name: str, clients: int = 200) -> tuple[float, float]:
    """Return the time of an attack on a client of a round, alone and among all, in ms."""
    view, auxiliary = one_step(10)
    views = [View(view.observations, memory=view.memory)] * clients
    attack = ATTACKS[name]
    assert attack.infer_all is not None
    answer_all = attack.infer_all
    alone = milliseconds(lambda: attack.infer(view, auxiliary, generator(0)))
    return alone, milliseconds(lambda: answer_all(views, auxiliary), 9) / clients


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
