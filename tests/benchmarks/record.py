"""What a benchmark measured, as rows that the results pages show.

    record("games", {"batches of 4: times the loop": 7.9})

appends to docs/results/games.csv one row per figure: when, by which command, with which versions,
on how many cores, what, and the value. The unit stands in the name of what was measured.
"""

import csv
import datetime as dt
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
COLUMNS = ("date", "command", "fedsim", "python", "torch", "flwr", "cores", "what", "value")


def record(benchmark: str, figures: Mapping[str, float], *, folder: Path = RESULTS) -> Path:
    """Append a row per figure to the table of a benchmark, and return the table's path."""
    shared = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "command": f"uv run python -m tests.benchmarks.{' '.join([benchmark, *_arguments()])}",
        "fedsim": _fedsim(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": version("torch"),
        "flwr": version("flwr"),
        "cores": os.cpu_count(),
    }
    path = folder / f"{benchmark}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            table.writeheader()
        table.writerows(
            {**shared, "what": what, "value": f"{value:.4g}"} for what, value in figures.items()
        )
    return path


def _arguments() -> list[str]:
    """Return the command's arguments; of an absolute path only the end, which says what it is."""
    return [Path(text).name if Path(text).is_absolute() else text for text in sys.argv[1:]]


def _fedsim() -> str:
    """Return the version, and the commit where there is one."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "+".join(filter(None, (version("fedsim"), commit.stdout.strip())))
