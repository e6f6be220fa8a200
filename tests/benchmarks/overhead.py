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
    ("cnn", 20, 4): 12,
    ("cnn", 100, 4): 8,
    ("cnn", 200, 4): 6,
    ("cnn", 40, 60): 5,
    ("resnet18", 10, 60): 3,
    ("cnn", 1000, 60): 2,
    ("cnn", 100, 600): 2,
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
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--images", default="", help="only cells of so many images a client")
    parser.add_argument("--clients", default="", help="only cells of so many clients")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    ways = [way for way in chosen.ways.split(",") if way != "pfl" or chosen.pfl]
    wanted_images, wanted_clients = (
        {int(number) for number in option.split(",") if number}
        for option in (chosen.images, chosen.clients)
    )
    print(f"| model | clients × images | {' | '.join(ways)} |")
    print(f"| --- | --- |{' --- |' * len(ways)}")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(shutil.copytree(chosen.data, folder, dirs_exist_ok=True))
        for (model, clients, images), rounds in CELLS.items():
            if wanted_images and images not in wanted_images:
                continue
            if wanted_clients and clients not in wanted_clients:
                continue
            spent: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(chosen.repeats):
                for way in ways:
                    cell = (model, clients, images, rounds)
                    spent[way].append(cpu(way, data, chosen.pfl, *cell))
            medians = {way: statistics.median(times) for way, times in spent.items()}
            base = medians[ways[0]]
            cells = [f"{value:.3g} s ({value / base:.2f})" for value in medians.values()]
            print(f"| {model} | {clients:,} × {images} | {' | '.join(cells)} |", flush=True)
            name = f"{model}, {clients} × {images}"
            figures |= {f"{name}, {way}: CPU seconds per round": v for way, v in medians.items()}
            figures |= {f"{name}, {way}: times {ways[0]}": v / base for way, v in medians.items()}
    record("overhead", figures)


if __name__ == "__main__":
    main()
