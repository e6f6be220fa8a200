"""How near a run's announcement of what attacks will cost comes to what they then cost.

    uv run python -m tests.benchmarks.attack_costs [--only CNN]

CPU-seconds of training and of each attack, expected before the run and spent in it, on the embedded
digits and MNIST, and how much of the run the rehearsal costs.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from fedsim import api, config
from fedsim.core.units import title_of
from fedsim.run.costs import expected_costs
from fedsim.run.prepare import prepare
from tests.benchmarks.record import record
from tests.real_data import SHARED, unpacked

MANY = ("federation.clients=40", "federation.rounds=5")
SETTINGS = {
    "first run, 25 rounds": ("federation.rounds=25",),
    "MLP, an epoch": (*MANY, "attack=eb-gls,rlu,ilrg"),
    "MLP, two epochs": (*MANY, "local.epochs=2", "attack=eb-gls-sim,eb-gls-rounds,eb-gls-gibbs"),
    "MLP, one gradient": (
        *MANY, "federation.strategy=fedsgd", "attack=eb-gls,rlu,update-lira,rmia"
    ),
    "MLP, noise": (*MANY, "defense=gaussian", "defense.gaussian.std=0.01", "attack=eb-gls,llg"),
    "MLP, 5 of 20 clients": (
        "federation.clients=20", "federation.per_round=5", "federation.rounds=40",
        "attack=eb-gls-rounds,cosine-mia-rounds",
    ),
    "CNN, three epochs": (
        *MANY, "model=cnn", "local.epochs=3", "attack=eb-gls-sim,fedmia-rounds"
    ),
    "LeNet-5, MNIST": (
        *MANY, "model=lenet5", "data=mnist", "data.limit=2000", "attack=eb-gls,eb-gls-sim"
    ),
}  # fmt: skip


def ratios(settings: tuple[str, ...]) -> Iterator[tuple[str, float, float]]:
    """Yield what, its CPU-seconds as expected, and as spent; the rehearsal beside the whole run."""
    if "data=mnist" in settings:
        settings = (*settings, f"data.root={unpacked(SHARED / 'mnist')}")
    setting = config.read(None, settings)
    begun = time.process_time()
    costs = expected_costs(prepare(setting))
    assert costs is not None
    rehearsal = time.process_time() - begun
    clock = patch("time.perf_counter", time.process_time)
    with tempfile.TemporaryDirectory() as folder, clock:
        run = api.run(setting, Path(folder) / "run")
        rows, measures = run.ledger().to_pylist(), run.metrics().to_pylist()
    answers = {
        (title_of(row["attack"], adaptive=row["adaptive"]), row["client"], row["round"]): row
        for row in rows
        if row["client"] is not None
    }
    spent: Counter[str] = Counter()
    for (title, _, _), row in answers.items():
        spent[title] += row["seconds"]
    training = sum(each["value"] for each in measures if each["metric"] == "train_seconds")
    yield "training", costs.training, training
    for attack, seconds in costs.attacks.items():
        yield attack.title, seconds, spent[attack.title]
    yield "rehearsal beside the run", rehearsal, training + sum(spent.values())


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="settings whose name holds this")
    chosen = parser.parse_args()
    print("| setting | what | expected, s | spent, s | ratio |\n| --- |" + " --- |" * 4)
    measured = {}
    for name, settings in SETTINGS.items():
        for what, expected, spent in ratios(settings) if chosen.only in name else ():
            ratio = measured[f"{name}: {what}"] = expected / spent
            print(f"| {name} | {what} | {expected:.2f} | {spent:.2f} | {ratio:.2f} |", flush=True)
    record("attack_costs", measured)


if __name__ == "__main__":
    main()
