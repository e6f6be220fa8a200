"""How fast this machine is now: what a wait may take, and what a test may cost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

START = 4.5  # seconds in which an idle machine starts a process with torch and Flower
PIECE = 0.15  # CPU-seconds of the piece of arithmetic below on the machine where limits were set
SLACK = 2.5  # caches and hyperthreads that neighbours share, and moments that differ


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder that all workers of this test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


class Patience:
    """Seconds to wait for processes, by what the start of one costs on this machine.

    Args:
        folder: Where the cost is kept, so that one test run measures it once.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "start_seconds"

    def __call__(self, seconds: float) -> float:
        """Return for how long to wait for what takes an idle machine so many seconds."""
        return seconds * max(1.0, self._measured() / START)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 180.0) -> None:
        """Wait until something is so; before giving up, measure the machine once more."""
        begun, most = time.monotonic(), self(seconds)
        while not condition():
            spent = time.monotonic() - begun
            if spent > most and spent > (most := seconds * max(1.0, start_seconds() / START)):
                raise AssertionError(f"not in {spent:.0f} s: {what}")
            time.sleep(0.1)

    def _measured(self) -> float:
        with FileLock(f"{self._file}.lock"):
            if not self._file.exists():
                self._file.write_text(str(start_seconds()))
        return float(self._file.read_text())


def start_seconds() -> float:
    """Return how long a process with torch and Flower takes to start."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch, flwr.app"], check=True)
    return time.monotonic() - begun


def cpu_seconds() -> float:
    """Return the CPU time of this process, without its children."""
    return time.process_time()


def slowness() -> float:
    """Return how many times as much CPU time as usual the same arithmetic takes now, with slack."""
    pieces = [_piece() for _ in range(3)]
    return SLACK * max(1.0, sorted(pieces)[1] / PIECE)


def _piece() -> float:
    begun = cpu_seconds()
    total = 0
    for number in range(1_500_000):
        total += number * number % 7
    return cpu_seconds() - begun
