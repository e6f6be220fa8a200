"""What attacks on a round of language models cost beside its training, and what they read.

    uv run python -m tests.benchmarks.text_rounds --rounds 6 --seeds 0 1 2

SMS messages, a GPT of width 128 and 1,024 tokens, eight clients of 16 texts; `token-rows`,
`row-bayes` and `positions` attack every client in every round. The cost is the CPU time of a run
with these attacks less that of the same run without, over that of the run without, in the rounds
after the first. Needs the folder of data.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fedsim import api
from fedsim.config import Config, parse
from tests.benchmarks.record import record

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS))
    given = parser.parse_args()
    torch.set_num_threads(1)
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
