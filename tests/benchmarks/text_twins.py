"""Attacks on tokens under defenses, by adversaries that do not know the defense and that do.

    uv run python -m tests.benchmarks.text_twins --seeds 0 1

The setting of `tests.benchmarks.text`; rounds 1 and 11 of 11 are attacked. Prints a row per
defense: static → adaptive in percent, means over clients, rounds and seeds, and in brackets blind
guesses. Needs the folder of data.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedsim import api
from tests.benchmarks.record import record
from tests.benchmarks.text import DEFENSES, config

ROUNDS = 11
COLUMNS = (
    ("token-rows", "f1"),
    ("row-bayes", "asr"),
    ("positions", "token_f1"),
    ("positions", "exact"),
)


def measured(defense: str, seed: int) -> dict[str, list[float]]:
    """Return the values of each column, static and adaptive, and the blind ones."""
    figures: dict[str, list[float]] = {}
    for texts, attacks in ((4, ("token-rows", "row-bayes")), (1, ("positions",))):
        with tempfile.TemporaryDirectory() as folder:
            asked = config(
                defense, texts=texts, rounds=ROUNDS, seed=seed, attacks=attacks, adaptive=True
            )
            every = tuple(it.model_copy(update={"every": ROUNDS - 1}) for it in asked.attack)
            run = api.run(asked.model_copy(update={"attack": every}), Path(folder) / "run")
            for row in run.ledger().to_pylist():
                if row["value"] is None or (row["attack"], row["metric"]) not in COLUMNS:
                    continue
                key = f"{row['attack']} {row['metric']}"
                side = "adaptive" if row["adaptive"] else "static"
                figures.setdefault(f"{key} {side}", []).append(row["value"])
                figures.setdefault(f"{key} blind", []).append(row["blind"])
    return figures


def _cell(means: Mapping[str, float], title: str) -> str:
    if f"{title} static" not in means:
        return "refused"
    static, adaptive, blind = (means[f"{title} {it}"] for it in ("static", "adaptive", "blind"))
    return f"{static:.1f} → {adaptive:.1f} ({blind:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--defenses", nargs="+", default=[it for it in DEFENSES if DEFENSES[it]])
    given = parser.parse_args()
    titles = [f"{name} {metric}" for name, metric in COLUMNS]
    print(f"| defense | {' | '.join(titles)} |\n{'| --- ' * (len(titles) + 1)}|")
    for defense in given.defenses:
        pooled: dict[str, list[float]] = {}
        for seed in given.seeds:
            for key, values in measured(defense, seed).items():
                pooled.setdefault(key, []).extend(values)
        means = {key: 100 * float(np.mean(values)) for key, values in pooled.items()}
        cells = [_cell(means, it) for it in titles]
        print(f"| {defense} | {' | '.join(cells)} |", flush=True)
        record("text_twins", {f"{defense}: {key}": value for key, value in means.items()})


if __name__ == "__main__":
    main()
