"""The dependency rule of the rooms, as written in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.untyped

ROOT = Path(__file__).parents[2]


def test_every_room_imports_only_what_it_may():
    check = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr


def test_nothing_heavy_is_imported_for_help():
    heavy = "torch", "flwr", "pyarrow", "numpy", "pydantic"
    code = f"import sys, fedsim.cli.main; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
