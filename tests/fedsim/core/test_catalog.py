import sys
from importlib.metadata import EntryPoint

import pytest

from fedsim.core import catalog
from fedsim.core.catalog import Entry
from fedsim.core.errors import ConfigError

RECORDS = "from fedsim.core.catalog import Entry\n"


def bare(root: str, *, size: int = 3) -> str:
    """Return the folder, of a size."""
    return root * size


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules, of which two hold a record of the same name."""
    (tmp_path / "rooms").mkdir()
    files = {
        "__init__": "",
        "pair": f"{RECORDS}PARTS = (Entry('b', len), Entry('a', max))",
        "single": f"{RECORDS}PART = Entry('c', min)",
        "again": f"{RECORDS}PART = Entry('a', sum)",
    }
    for name, text in files.items():
        (tmp_path / "rooms" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "rooms"
    for name in [name for name in sys.modules if name.split(".")[0] == "rooms"]:
        del sys.modules[name]


def offer(monkeypatch, **paths):
    points = [EntryPoint(name, path, "fedsim.parts") for name, path in paths.items()]
    monkeypatch.setattr(catalog, "offered", lambda group, path: points)


def test_records_stand_in_the_order_of_the_list(package):
    assert list(catalog.collect(package, ("pair", "single"), "PART")) == ["b", "a", "c"]
    assert list(catalog.collect(package, ("single", "pair"), "PART")) == ["c", "b", "a"]
    assert catalog.collect(package, ("single",), "PART")["c"].make is min


def test_a_name_that_two_records_have_is_refused(package):
    with pytest.raises(ValueError, match="rooms: names must differ, got 'a' twice"):
        catalog.collect(package, ("pair", "again"), "PART")


def test_what_packages_offer_stands_beside_the_built_in(monkeypatch):
    offer(monkeypatch, theirs=f"{__name__}:bare", mine=f"{__name__}:offer")
    mine = Entry("mine", bare, paper="Nobody, 1999")
    listed = catalog.entries({"mine": mine}, "parts")
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
