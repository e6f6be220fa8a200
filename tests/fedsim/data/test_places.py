from pathlib import Path

import pytest

from fedsim.config import Data
from fedsim.core.errors import ConfigError
from fedsim.data import places
from fedsim.data.load import load
from fedsim.data.places import FILES, FOLDERS, root_of, wanted
from fedsim.data.registry import DATASETS


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A working directory and a project with nothing beside them."""
    monkeypatch.setattr(places, "ROOT", tmp_path / "project")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("FEDSIM_DATA", raising=False)
    return tmp_path


def test_a_root_of_the_config_comes_first_then_the_variable_then_what_lies_beside(
    away, monkeypatch
):
    assert root_of("mnist", None) == Path("~/.cache/fedsim/mnist").expanduser()
    beside = away / "shared" / "data" / "cifar-10"
    beside.mkdir(parents=True)
    assert root_of("cifar10", None) == beside
    assert root_of("mnist", None) == Path("~/.cache/fedsim/mnist").expanduser()
    (away / "own" / "cifar10").mkdir(parents=True)
    monkeypatch.setenv("FEDSIM_DATA", str(away / "own"))
    assert root_of("cifar10", None) == away / "own" / "cifar10"
    assert root_of("cifar10", str(away / "given")) == away / "given"
    assert "cache" in str(root_of("my.package:records", None))


def test_a_set_that_cannot_be_read_names_its_files_and_their_folder(away):
    root = away / "none"
    with pytest.raises(ConfigError) as error:
        load(Data(name="olivetti", root=str(root)), 0)
    assert f"put olivettifaces.mat into {root}, or set FEDSIM_DATA to" in str(error.value)
    assert wanted("my.package:records", root) == ""


def test_every_set_with_files_says_which():
    assert set(FILES) == set(DATASETS) - {"digits", "messages"}
    assert set(FOLDERS) <= set(FILES)
