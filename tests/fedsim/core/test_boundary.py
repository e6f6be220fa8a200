import pytest
import torch

from adversary.attack import Attack
from adversary.grading.answers import _guess
from fedsim.core import catalog
from fedsim.core.boundary import boundary, explained, raised
from fedsim.core.errors import ConfigError, RunStopped
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad\nrows"), "ValueError: bad rows"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyError("x"), "KeyError: 'x'"),
        (Mute(), "Mute"),
        (MemoryError(), "MemoryError"),
        (torch.cuda.OutOfMemoryError("full"), "OutOfMemoryError: full"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_whatever_foreign_code_raises_is_one_sentence_with_its_place(error, text):
    with pytest.raises(RunStopped) as stopped, boundary("part", "must work", error=RunStopped):
        raise error
    assert str(stopped.value).startswith(f"part: must work, got {text} (core/test_boundary.py:")
    assert "test_boundary.py:" in str(stopped.value)
    assert stopped.value.__cause__ is error


@pytest.mark.parametrize("error", [ConfigError("a: must be b, got c"), KeyboardInterrupt()])
def test_our_own_sentences_and_ctrl_c_pass(error):
    with pytest.raises(type(error)) as passed, boundary("part", "must work"):
        raise error
    assert passed.value is error


def test_the_place_is_the_users_and_not_a_librarys():
    def stack():
        torch.stack([torch.zeros(1), torch.zeros(2)])

    def parse():
        import json

        json.loads("{")

    for call in (stack, parse):
        with pytest.raises((RuntimeError, ValueError)) as error:
            call()
        assert "test_boundary.py:" in raised(error.value)
    assert len(raised(ValueError("x" * 9999))) < 400
    assert explained(ValueError("bound: must be positive, got -1")).startswith("bound: must")
    assert explained(IndexError("no")) == "IndexError: no"


def exits(*, size=3):
    raise SystemExit(size)


def loose(*, size=3):
    return size


def unknown(*, size: "Nowhere" = 3):  # pyright: ignore
    return size


def typed(*, size: int = 3, share: float = 0.5, flag: bool = False):
    return size, share, flag


def test_a_part_that_ends_the_process_or_has_no_types_is_one_sentence():
    with pytest.raises(ConfigError, match=r"part: must be built .*SystemExit: 4 \(.*boundary.py"):
        catalog.call("part", exits, {"size": 4})
    with pytest.raises(ConfigError, match="must be a function or a class"):
        catalog.call("part", unknown, {"size": 4})
    assert catalog.call("part", loose, {"size": "any"}) == "any"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": True}, "part.size: must be a int, got True"),
        ({"size": "3"}, "part.size: must be a int, got '3'"),
        ({"share": "0.5"}, "part.share: must be a float, got '0.5'"),
        ({"share": False}, "part.share: must be a float, got False"),
        ({"flag": 1}, "part.flag: must be a bool, got 1"),
        ({"flag": "yes"}, "part.flag: must be a bool, got 'yes'"),
        ({"size": 2.5}, "part.size: input should be a valid integer"),
    ],
)
def test_an_option_is_never_another_number_than_was_written(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        catalog.call("part", typed, options)
    assert catalog.call("part", typed, {"size": 4.0, "share": 1}) == (4, 1.0, False)


def test_a_module_that_ends_the_process_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text("import sys\n\nsys.exit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"got 'leaving:part' \(SystemExit: 7 \(.*leaving.py:3"):
        catalog.find("model.name", "leaving:part", {})


def test_why_an_attack_failed_says_where():
    def broken(view, auxiliary, generator):
        return view.nothing

    model = bilinear(3)
    view = observe(plain_gradient(model, torch.ones(1, 4), torch.tensor([1])), 1, sent=model)
    attack = Attack(name="broken", family="label", infer=broken, summary="breaks")
    auxiliary = auxiliary_of(model, 3)
    result = _guess(view, attack, auxiliary, auxiliary, 0)
    assert not result.refused
    assert result.reason.startswith(
        "AttributeError: 'View' object has no attribute 'nothing' (core/test_boundary.py:"
    )
