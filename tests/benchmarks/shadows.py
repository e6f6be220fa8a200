"""What shadow clients of a game cost that train together, beside those that train one by one.

Run `uv run python -m tests.benchmarks.shadows`.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fedsim.config import cells
from fedsim.games import table
from tests.benchmarks.record import record

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


def main() -> None:
    """Play each setting one by one, together, and one by one again; print and record it."""
    torch.set_num_threads(1)
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
