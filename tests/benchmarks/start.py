"""What a process costs before it works: imports, the first trained round, and the first report.

    uv run python -m tests.benchmarks.start

CPU-seconds of fresh processes. The imports take turns; the figures are medians.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile

from tests.benchmarks.record import ROOT, record

BASE, OURS = "import torch, flwr.app", "from fedsim import api"
RUN = """
import resource, sys
from fedsim import api
cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
marks = []
api.run(out=sys.argv[1], on_round=lambda _: marks.append(cpu()))
print(marks[1], cpu())
"""
REPEATS = 5


def cpu(code: str) -> float:
    """Return the CPU-seconds of a fresh process that runs some code."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = used()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return used() - before


def first_run() -> tuple[float, float]:
    """Return the CPU-seconds to the first trained round of a default run, and to its report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RUN, f"{folder}/run"]
        ended = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    trained, drawn = map(float, ended.stdout.split())
    return trained, drawn


def main() -> None:
    """Print what was measured."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # without its cache every start compiles
    for code in (BASE, OURS):
        cpu(code)
    pairs = [(cpu(BASE), cpu(OURS)) for _ in range(REPEATS)]
    base, ours = map(statistics.median, zip(*pairs, strict=True))
    trained, drawn = map(statistics.median, zip(*(first_run() for _ in range(3)), strict=True))
    figures = {
        f"{BASE}: CPU-s": base,
        f"{OURS}: CPU-s": ours,
        f"{OURS}: times {BASE}": ours / base,
        "first trained round of a default run: CPU-s": trained,
        "report of a default run: CPU-s": drawn,
    }
    for what, value in figures.items():
        print(f"{what:60} {value:.3g}")
    record("start", figures)


if __name__ == "__main__":
    main()
