"""Models that attacks on texts read less of: rotary positions, a tied head, an encoder.

    uv run python -m tests.benchmarks.text_open --seeds 0 1

SMS messages, width 128, 1,024 tokens, four clients, gradients of one or two texts at the initial
model. Prints a row per model and number of texts: means in percent over clients and seeds, and in
brackets those of blind guesses. Needs the folder of data.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedsim import api
from fedsim.config import parse
from tests.benchmarks.record import record

MODELS: Mapping[str, Mapping[str, object]] = {
    "gpt": {"name": "gpt"},
    "gpt, rotary": {"name": "gpt", "positions": "rotary"},
    "gpt, tied head": {"name": "gpt", "tie": True},
    "bert": {"name": "bert"},
}
SIZES = (1, 2)
COLUMNS = (
    ("dager", "token_f1"),
    ("dager", "exact"),
    ("token-rows", "f1"),
    ("row-bayes", "asr"),
    ("positions", "exact"),
)


def measured(model: str, texts: int, seed: int) -> dict[str, list[float]]:
    """Return values and blind values of each column."""
    attacks = ["dager", "token-rows"] + ["row-bayes"] * (model != "bert")
    attacks += ["positions"] * (texts == 1)
    config = parse({
        "seed": seed,
        "data": {
            "name": "sms-spam", "limit": 400, "partition": "iid",
            "task": "label" if model == "bert" else "next",
        },
        "model": dict(MODELS[model]),
        "federation": {
            "clients": 4, "rounds": 1, "strategy": "fedsgd",
        },
        "local": {"batch_size": texts, "lr": 0.3, "upload": "gradient"},
        "auxiliary": {"share": 0.5},
        "attack": attacks,
    })  # fmt: skip
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for row in api.run(config, Path(folder) / "run").ledger().to_pylist():
            if row["value"] is not None and (row["attack"], row["metric"]) in COLUMNS:
                key = f"{row['attack']} {row['metric']}"
                figures.setdefault(key, []).append(row["value"])
                figures.setdefault(f"{key} blind", []).append(row["blind"])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    given = parser.parse_args()
    titles = [f"{name} {metric}" for name, metric in COLUMNS]
    print(f"| model | texts | {' | '.join(titles)} |\n{'| --- ' * (len(titles) + 2)}|")
    for model in given.models:
        for texts in SIZES:
            pooled: dict[str, list[float]] = {}
            for seed in given.seeds:
                for key, values in measured(model, texts, seed).items():
                    pooled.setdefault(key, []).extend(values)
            means = {key: 100 * float(np.mean(values)) for key, values in pooled.items()}
            cells = [
                f"{means[it]:.1f} ({means[f'{it} blind']:.1f})" if it in means else "–"
                for it in titles
            ]
            print(f"| {model} | {texts} | {' | '.join(cells)} |", flush=True)
            record("text_open", {f"{model}, {texts}: {k}": v for k, v in means.items()})


if __name__ == "__main__":
    main()
