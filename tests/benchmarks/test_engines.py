"""The benchmark's smallest cell, as a check that it runs; the table itself is made by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.engines import ROOT, empty_message

SHARED = Path(os.environ.get("FEDSIM_DATA", ROOT.parent / "shared" / "data"))

pytestmark = pytest.mark.bench


def test_bare_and_inline_side_by_side():
    if not (SHARED / "mnist").exists():
        pytest.skip(f"no MNIST in {SHARED}")
    command = [sys.executable, "-m", "tests.benchmarks.engines", "--data", SHARED / "mnist"]
    chosen = ["--models", "cnn", "--clients", "1000", "--ways", "bare,inline"]
    told = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True, check=True)
    print(told.stdout)
    assert told.stdout.count("| cnn | 1000 × 60 |") == 2


def test_an_empty_message():
    print(f"empty message: {1000 * empty_message():.3f} ms of CPU")
