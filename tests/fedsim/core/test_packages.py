"""Files of other apps that hide one of fedsim's packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.core.packages import PACKAGES, shadowed, shadowing

ROOT = Path(__file__).parents[3]


def test_nothing_hides_fedsims_packages_here():
    assert shadowed() is None
    assert list(shadowing(ROOT)) == []


@pytest.mark.parametrize("name", PACKAGES[1:])
def test_an_apps_file_of_the_same_name_is_one_sentence_at_import(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it was run')")
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import fedsim"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    file = (tmp_path / f"{name}.py").resolve()
    assert last == (
        f"ImportError: {name}: must be fedsim's own package, got {file}; rename that module"
    )
    assert list(shadowing(tmp_path)) == [last.removeprefix("ImportError: ")]


def test_a_package_hides_and_a_plain_folder_does_not(tmp_path, monkeypatch):
    (tmp_path / "clients").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "clients", raising=False)
    assert shadowed() is None
    assert list(shadowing(tmp_path)) == []
    (tmp_path / "clients" / "__init__.py").write_text("")
    assert "clients: must be fedsim's own package" in (shadowed() or "")
    assert len(list(shadowing(tmp_path))) == 1


def test_the_command_line_imports_no_file_of_its_folder_that_nobody_named(tmp_path):
    for name in ("defenses", "scipy", "matplotlib", "jinja2", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was run')")
    command = [str(Path(sys.executable).parent / "fedsim"), "list", "defenses"]
    result = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "gaussian" in result.stdout


def test_the_command_line_says_what_hides_its_packages(tmp_path):
    (tmp_path / "defenses.py").write_text("")
    program = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import fedsim.cli.main as it\n"
    program += f"sys.path[:0] = [{str(tmp_path)!r}]; it.main()"
    command = [sys.executable, "-c", program, "list", "defenses"]
    result = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("fedsim: defenses: must be fedsim's own package, got ")
