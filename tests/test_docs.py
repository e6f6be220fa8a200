"""What stands beside the code: one version, a short README."""

import tomllib
from pathlib import Path

import fedsim

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedsim", "strategies", "clients", "adversary", "defenses")


def test_one_version_is_stated_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = project["version"]
    assert fedsim.__version__ == version
    assert f"\n## {version} (" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_package_says_that_it_is_typed():
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)
