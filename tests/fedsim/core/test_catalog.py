import sys
from importlib.metadata import EntryPoint

import pytest

from fedsim.core import catalog
from fedsim.core.catalog import Entry
from fedsim.core.errors import ConfigError


def bare(root: str, *, size: int = 3) -> str:
    """Return the folder, of a size."""
    return root * size


def offer(monkeypatch, **paths):
    points = [EntryPoint(name, path, "fedsim.parts") for name, path in paths.items()]
    monkeypatch.setattr(catalog, "offered", lambda group, path: points)


def test_what_packages_offer_stands_beside_the_built_in(monkeypatch):
    offer(monkeypatch, theirs=f"{__name__}:bare", mine=f"{__name__}:offer")
    mine = Entry("mine", bare, paper="Nobody, 1999")
    listed = catalog.entries({"mine": mine}, "parts")  # a built-in part keeps its name
    assert listed == {"mine": mine, "theirs": Entry("theirs", bare)}
    assert listed["theirs"].summary == "Return the folder, of a size."


def test_an_entry_is_found_by_name_and_a_function_by_its_path(monkeypatch):
    offer(monkeypatch, theirs=f"{__name__}:bare")
    builtin = {"mine": Entry("mine", offer)}
    assert catalog.find_entry("part", "mine", builtin, "parts") is builtin["mine"]
    for name in ("theirs", f"{__name__}:bare"):
        assert catalog.find_entry("part", name, builtin, "parts").make is bare
    assert Entry("without", offer).summary == ""
    with pytest.raises(ConfigError, match="part: must be a known name, got 'mien'; did you mean"):
        catalog.find_entry("part", "mien", builtin, "parts")


def test_an_entry_point_that_cannot_be_imported_is_one_sentence(monkeypatch):
    offer(monkeypatch, broken="nowhere:part")
    with pytest.raises(ConfigError, match="entry point broken: must be an importable"):
        catalog.entries({}, "parts")
    builtin = {"mine": Entry("mine", bare)}
    assert catalog.find_entry("part", "mine", builtin, "parts") is builtin["mine"]
    with pytest.raises(ConfigError, match="did you mean 'broken'"):
        catalog.find_entry("part", "broke", builtin, "parts")


def test_the_users_folder_is_on_no_path_before_a_module_in_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "fractions.py").write_text("import sys\nPATH = list(sys.path)\n")
    info = tmp_path / "fractions-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fractions\nVersion: 9\n")
    (info / "entry_points.txt").write_text("[fedsim.parts]\nx = fractions:PATH\n")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(catalog, "_searched", [])
    monkeypatch.delitem(sys.modules, "fractions", raising=False)
    catalog.search_in(tmp_path)
    assert str(tmp_path) not in sys.path
    assert catalog.with_extensions({}, "parts") == {}
    assert catalog.find("part", "fractions:PATH", {})[0] == str(tmp_path)
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1
    monkeypatch.delitem(sys.modules, "fractions")
