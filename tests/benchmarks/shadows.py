"""What shadow clients of a game cost that train together, beside those that train one by one.

Run `uv run python -m tests.benchmarks.shadows`.
"""

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import nn

from adversary.members import shadows
from fedsim.config import cells
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.games import table
from tests.benchmarks.record import record
from tests.builders import work_at

LOCAL = "game.upload=weights"
SETTINGS = {
    "a gradient of 4": ("game.batch_size=4",),
    "weights after 2 epochs of 4, batches of 2": (
        *(LOCAL, "game.batch_size=4", "local.batch_size=2", "local.epochs=2"),
    ),
    "weights after 5 epochs of 8, batches of 4": (
        *(LOCAL, "game.batch_size=8", "local.batch_size=4", "local.epochs=5"),
    ),
}


def played(engine: str, settings: tuple[str, ...]) -> tuple[float, float]:
    """Return the CPU-seconds of a game of membership, and its AUROC."""
    with TemporaryDirectory() as folder:
        start = time.process_time()
        setting = cells(None, ["game.play=membership", f"engine.name={engine}", *settings], [])
        rows = table.games(setting, Path(folder, "game")).to_pylist()
        spent = time.process_time() - start
    return spent, next(row["value"] for row in rows if row["metric"] == "auroc")


def rehearsed(batch: int, epochs: int, rehearsals: Rehearsals) -> float:
    """Return the CPU-milliseconds of 16 rehearsed clients of 64 records in batches of 8."""
    with global_stream(0, "model"):
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    inputs, labels = torch.rand(600, 64, generator=generator(0, "inputs")), torch.arange(600) % 10
    known = Auxiliary(model, 10, inputs=inputs, labels=labels, rehearsals=rehearsals)
    local = LocalTraining(0.1, batch, epochs=epochs)
    work = work_at(known, dict(model.state_dict()), local)
    shadows.shadows(work, 64)  # tries the model, once a run
    work = work_at(known, work.sent, local)
    start = time.process_time()
    shadows.shadows(work, 64)
    return 1000 * (time.process_time() - start)


def print_rehearsals(turns: int = 9) -> None:
    """Print what the shadow clients of membership attacks cost in either way."""
    for epochs in (1, 5):
        pairs = [[rehearsed(8, epochs, Rehearsals(k)) for k in (1, 32)] for _ in range(turns)]
        alone, both = (median(spent) for spent in zip(*pairs, strict=True))
        what = f"16 clients of membership attacks, {epochs} epochs"
        print(f"{what} | {alone:.1f} ms | {both:.1f} ms | {both / alone:.2f}")
        record("shadows", {f"{what}: ratio": both / alone})


def main() -> None:
    """Play each setting one by one, together, and one by one again; print and record it."""
    torch.set_num_threads(1)
    print_rehearsals()
    played("batched", SETTINGS["a gradient of 4"])  # imports are not timed
    print("setting | one by one, s | together, s | ratio | AUROC, both")
    for name, settings in SETTINGS.items():
        (first, auroc), (both, other), (last, _) = (
            played(engine, settings) for engine in ("inline", "batched", "inline")
        )
        alone = (first + last) / 2
        print(f"{name} | {alone:.2f} | {both:.2f} | {both / alone:.2f} | {auroc:.4f} {other:.4f}")
        figures = {"one by one, CPU-s": alone, "together, CPU-s": both, "AUROC": auroc}
        record("shadows", {f"{name}: {what}": value for what, value in figures.items()})


if __name__ == "__main__":
    main()
