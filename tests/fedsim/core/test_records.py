import sys

import pytest

from fedsim.core.records import Joined, Records

IMPORT = "from fedsim.core.catalog import Entry\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of four modules, of which two hold a record of the same name."""
    (tmp_path / "rooms").mkdir()
    files = {
        "__init__": "",
        "pair": f"{IMPORT}PARTS = (Entry('b', len), Entry('pair-a', max))",
        "pair_of": f"{IMPORT}PART = Entry('pair-of-two', min)",
        "single": f"{IMPORT}PART = Entry('c', min)",
        "again": f"{IMPORT}PART = Entry('pair-a', sum)",
    }
    for name, text in files.items():
        (tmp_path / "rooms" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "rooms"
    for name in [name for name in sys.modules if name.split(".")[0] == "rooms"]:
        del sys.modules[name]


def imported() -> set[str]:
    return {name.removeprefix("rooms.") for name in sys.modules if name.startswith("rooms.")}


def test_records_stand_in_the_order_of_the_list(package):
    assert list(Records(package, ("pair", "single"), "PART")) == ["b", "pair-a", "c"]
    records = Records(package, ("single", "pair"), "PART")
    assert list(records) == ["c", "b", "pair-a"]
    assert len(records) == 3
    assert records["c"].make is min


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("pair-a", {"pair"}),
        ("pair-of-two", {"pair_of"}),  # the longest name first
        ("c", {"pair", "pair_of", "single"}),  # no module is called so
        ("pair-none", {"pair", "pair_of", "single"}),
        ("pair-a:part", {"pair", "pair_of", "single"}),
    ],
)
def test_a_name_imports_the_modules_that_it_begins_with(package, name, modules):
    records = Records(package, ("pair", "pair_of", "single"), "PART")
    assert imported() == set()
    assert (name in records) == (name in {"pair-a", "pair-of-two", "c"})
    assert imported() == modules
    with pytest.raises(KeyError):
        records["none"]


def test_a_name_that_two_records_have_is_refused(package):
    with pytest.raises(ValueError, match="rooms: names must differ, got 'pair-a' twice"):
        list(Records(package, ("pair", "again"), "PART"))


def test_of_a_name_that_two_mappings_have_the_first_counts():
    joined = Joined({"a": 1, "b": 2}, {"b": 3, "c": 4}, {})
    assert dict(joined) == {"a": 1, "b": 2, "c": 4}
    assert list(joined) == ["a", "b", "c"]
    assert len(joined) == 3
    assert "d" not in joined
    assert not Joined()
