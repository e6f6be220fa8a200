"""What recording and attacking cost beside a bare loop; pfl, which does neither, beside them.

    uv run python -m tests.benchmarks.overhead --data ../shared/data/mnist --pfl FOLDER/bin/python

The cells are those of `engines`: MNIST, batches of 16, one epoch, LLG on every upload. pfl has an
environment of its own (see `pfl_rounds`) and is left out without it. Each cell is a process of its
own; the ways take turns, and a row shows medians of CPU-seconds per round.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.engines import ROOT
from tests.benchmarks.record import record

CELLS = {  # (model, clients, images) → rounds
    ("cnn", 100, 4): 8,
    ("resnet18", 10, 60): 3,
    ("cnn", 1000, 60): 3,
    ("cnn", 100, 600): 3,
}
WAYS = ("bare", "inline", "batched", "pfl")
PFL = Path(__file__).with_name("pfl_rounds.py")


def cpu(way: str, data: Path, pfl: Path | None, *cell: object) -> float:
    """Return the CPU-seconds of a round of one cell, measured in a process of its own."""
    arguments = [str(part) for part in cell]
    if way == "pfl":
        command = [str(pfl), str(PFL), str(data), *arguments]
    else:
        module = [sys.executable, "-m", "tests.benchmarks.engines"]
        command = [*module, "--data", str(data), "--cell", way, *arguments]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(ended.stdout.strip().splitlines()[-1])["cpu"])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with MNIST/raw/*.gz")
    parser.add_argument("--pfl", type=Path, help="the Python of an environment with pfl 0.6.0")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    ways = [way for way in WAYS if way != "pfl" or chosen.pfl]
    print(f"| model | clients × images | {' | '.join(ways)} |")
    print(f"| --- | --- |{' --- |' * len(ways)}")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(shutil.copytree(chosen.data, folder, dirs_exist_ok=True))
        for (model, clients, images), rounds in CELLS.items():
            spent: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(chosen.repeats):
                for way in ways:
                    cell = (model, clients, images, rounds)
                    spent[way].append(cpu(way, data, chosen.pfl, *cell))
            medians = {way: statistics.median(times) for way, times in spent.items()}
            base = medians["bare"]
            cells = [f"{value:.3g} s ({value / base:.2f})" for value in medians.values()]
            print(f"| {model} | {clients:,} × {images} | {' | '.join(cells)} |", flush=True)
            name = f"{model}, {clients} × {images}"
            figures |= {f"{name}, {way}: CPU seconds per round": v for way, v in medians.items()}
            figures |= {f"{name}, {way}: times bare": v / base for way, v in medians.items()}
    record("overhead", figures)


if __name__ == "__main__":
    main()
