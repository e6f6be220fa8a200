import pytest

from fedsim.config import keys, nearest_key, parse, search
from fedsim.core.errors import ConfigError, closest, nearest


def test_every_key_is_found_by_its_name_and_by_its_description():
    for key in keys():
        assert key in search(key.name)
        assert key in search(key.path)
        assert key in search(" ".join(key.description.split()[:3]))
    assert search("") == search("  ") == search("round xyz") == []


@pytest.mark.parametrize(
    ("tables", "hint"),
    [
        ({"rounds": 5}, "did you mean 'federation.rounds' or 'game.rounds' or 'audit.rounds'?"),
        ({"num_rounds": 5}, "did you mean 'federation.rounds'"),
        ({"local": {"rounds": 5}}, "did you mean 'federation.rounds'"),
        ({"local": {"lrr": 5}}, "did you mean 'lr'?"),
        ({"federation": {"epochs": 5}}, "did you mean 'local.epochs'?"),
        ({"federation": {"num_clients": 5}}, "did you mean 'clients'?"),
        ({"xyz": 5}, "one of attack, audit, auxiliary"),
    ],
)
def test_an_unknown_key_gets_the_nearest_wherever_it_stands(tables, hint):
    with pytest.raises(ConfigError, match="must be a known key") as error:
        parse(tables)
    assert hint in str(error.value)


def test_a_name_of_a_section_is_its_name():
    assert nearest_key("model", ()) == "did you mean 'model.name'?"


def test_the_nearest_of_equals_begins_alike():
    assert closest("lgg", ["zlg", "rlg", "llg", "llbg"]) == "llg"
    assert closest("EB_GLS", ["eb-gls", "eb-gls-sim"]) == "eb-gls"
    assert closest("xyz", ["llg"]) is None
    assert closest("", ["llg"]) is None
    assert closest("a", []) is None
    many = [f"part-{number:02}" for number in range(30)]
    assert nearest("xyz", many).endswith("part-19, … (30 in all)")
