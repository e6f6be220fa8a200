"""Attacks on a language model under defenses, with what each defense costs in perplexity.

    uv run python -m tests.benchmarks.text --rounds 30 --seeds 0 1 2

SMS messages, a GPT of width 128 and 1,024 tokens, four clients, FedSGD with gradients of four texts
(`positions`: of one text). The first round and the last but nine are attacked. Prints a row per
defense: means in percent over clients, rounds and seeds ± the standard error over seeds, and in
brackets those of blind guesses. Needs the folder of data.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedsim import api
from fedsim.config import Config, parse
from tests.benchmarks.record import record

DEFENSES: Mapping[str, Sequence[Mapping[str, object]]] = {
    "none": [],
    "clip 0.1": [{"name": "clip", "bound": 0.1}],
    "gaussian 1e-5": [{"name": "gaussian", "std": 1e-5}],
    "gaussian 1e-4": [{"name": "gaussian", "std": 1e-4}],
    "gaussian 1e-3": [{"name": "gaussian", "std": 1e-3}],
    "gaussian 1e-2": [{"name": "gaussian", "std": 1e-2}],
    "prune 90 %": [{"name": "prune", "rate": 0.9}],
    "quantise 4 bits": [{"name": "quantise", "bits": 4}],
    "sign": [{"name": "sign", "magnitude": 1e-3}],
    "dp-sgd, noise 1": [{"name": "dp-sgd", "clip": 1.0, "noise": 1.0, "sampling": "shuffle"}],
    "freeze embedding": [{"name": "freeze", "layers": ["tokens"]}],
}
COLUMNS = (
    ("token-rows", "f1"),
    ("row-bayes", "asr"),
    ("dager", "rougeL"),
    ("dager", "exact"),
    ("positions", "exact"),
)
LR, SMALL = 0.3, {"dp-sgd, noise 1": 0.01}  # where 0.3 diverges


def config(
    defense: str,
    *,
    texts: int,
    rounds: int,
    seed: int,
    attacks: Sequence[str],
    adaptive: bool = False,
) -> Config:
    """Return one run."""
    every = max(1, rounds - 10)
    return parse({
        "seed": seed,
        "data": {"name": "sms-spam", "limit": 1000, "partition": "iid"},
        "model": {"name": "gpt"},
        "federation": {
            "clients": 4, "rounds": rounds, "strategy": "fedsgd", "evaluate_every": rounds,
        },
        "local": {"batch_size": texts, "lr": SMALL.get(defense, LR), "upload": "gradient"},
        "auxiliary": {"share": 0.3, "knows_defense": adaptive},
        "record": {"every": every},
        "defense": list(DEFENSES[defense]),
        "attack": [
            {"name": name, "every": every} | ({"clients": ["0"]} if name == "dager" else {})
            for name in attacks
        ],
    })  # fmt: skip


def measured(defense: str, rounds: int, seed: int) -> dict[str, list[float]]:
    """Return the values and blind values of each column, and the last perplexity."""
    figures: dict[str, list[float]] = {}
    for texts, length, attacks in (
        (4, rounds, ("token-rows", "row-bayes", "dager")),
        (1, 2, ("positions",)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            asked = config(defense, texts=texts, rounds=length, seed=seed, attacks=attacks)
            run = api.run(asked, Path(folder) / "run")
            for row in run.ledger().to_pylist():
                key = f"{row['attack']} {row['metric']}"
                if row["value"] is not None and (row["attack"], row["metric"]) in COLUMNS:
                    figures.setdefault(key, []).append(row["value"])
                    figures.setdefault(f"{key} blind", []).append(row["blind"])
            if texts > 1:
                last = [r for r in run.metrics().to_pylist() if r["metric"] == "perplexity"][-1]
                figures["perplexity"] = [last["value"]]
    return figures


def cell(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Return the mean of one value per seed, with its standard error where there are several."""
    mean = f"{scale * np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {scale * np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--defenses", nargs="+", default=list(DEFENSES))
    given = parser.parse_args()
    titles = [f"{name} {metric}" for name, metric in COLUMNS]
    print(f"| defense | {' | '.join(titles)} | perplexity |\n{'| --- ' * (len(titles) + 2)}|")
    for defense in given.defenses:
        means: dict[str, list[float]] = {}
        for seed in given.seeds:
            for key, values in measured(defense, given.rounds, seed).items():
                means.setdefault(key, []).append(float(np.mean(values)))
        cells = [
            f"{cell(means[t], 100)} ({100 * np.mean(means[f'{t} blind']):.1f})"
            if t in means
            else "refused"
            for t in titles
        ]
        cells.append(cell(means["perplexity"], digits=0))
        print(f"| {defense} | {' | '.join(cells)} |", flush=True)
        record("text", {f"{defense}: {key}": float(np.mean(each)) for key, each in means.items()})


if __name__ == "__main__":
    main()
