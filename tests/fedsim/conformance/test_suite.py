"""The suite finds what is wrong with an attack, and nothing with one that keeps the contract."""

import math
from dataclasses import replace

import pytest
import torch

from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.steps import num_labels
from fedsim.conformance import suite
from fedsim.core.errors import ConfigError, ContractBroken
from tests.command import fedsim

NAMES = {
    "form": "answers have the family's shape and type",
    "seed": "the same seed gives the same answer",
    "view": "the view is left alone, to the bit",
    "together": "many views get the answers of each alone",
    "nan": "NaN and infinity are refused by ValueError",
    "odd": "odd gradients get counts that add up",
    "blind": "better than blind on a plain gradient",
    "noise": "no advantage on noise in place of an update",
}


def llg(view, auxiliary, generator):
    return ATTACKS["llg"].infer(view, auxiliary, generator)


def attack_with(infer, **changes):
    return replace(Attack(name="mine", family="label", infer=infer), **changes)


def broken(infer, **changes):
    outcomes = suite.conform(attack_with(infer, **changes))
    return {
        key
        for key, name in NAMES.items()
        for it in outcomes
        if (it.name, it.state) == (name, "fail")
    }


def blind(view, auxiliary, generator):
    counts = torch.zeros(auxiliary.num_classes, dtype=torch.long)
    counts[0] = num_labels(view.latest)
    return counts


def with_global_randomness(view, auxiliary, generator):
    counts = torch.zeros(auxiliary.num_classes, dtype=torch.long)
    counts[int(torch.rand(()) * 10**6) % 10] = num_labels(view.latest)
    return counts


def in_place(view, auxiliary, generator):
    guess = llg(view, auxiliary, generator)
    list(view.latest.update.delta.values())[-1].mul_(1.0).neg_().neg_().add_(1e-3)
    return guess


def in_floats(view, auxiliary, generator):
    return llg(view, auxiliary, generator).double()


def with_key_error(view, auxiliary, generator):
    if not all(bool(torch.isfinite(value).all()) for value in view.latest.update.delta.values()):
        raise KeyError("head")
    return llg(view, auxiliary, generator)


@pytest.mark.parametrize(
    ("infer", "expected"),
    [
        (llg, set()),
        (blind, {"blind", "nan"}),
        (with_global_randomness, {"blind", "nan", "seed"}),
        (in_floats, {"form"}),
        (with_key_error, {"nan"}),
    ],
)  # fmt: skip
def test_each_planted_fault_breaks_its_property(infer, expected):
    assert broken(infer) == expected


def test_answers_together_that_are_not_those_alone_are_seen():
    name = NAMES["together"]
    for infer_all in (
        lambda views, auxiliary: ATTACKS["llg"].infer_all(views[::-1], auxiliary),
        lambda views, auxiliary: ATTACKS["llg"].infer_all(views, auxiliary)[:-1],
        lambda views, auxiliary: ATTACKS["llg"].infer_all(views, auxiliary).int(),
    ):
        outcomes = {
            it.name: it.state for it in suite.conform(attack_with(llg, infer_all=infer_all))
        }
        assert [key for key, state in outcomes.items() if state == "fail"] == [name]


def test_a_changed_view_is_seen():
    outcomes = {it.name: it for it in suite.conform(attack_with(in_place))}
    assert outcomes[NAMES["view"]].state == "fail"
    assert "changed the update" in outcomes[NAMES["view"]].reason


def test_what_is_no_number_on_noise_alone_does_not_pass_as_chance():
    of = ATTACKS["cosine-mia"]

    def nan_on_noise(view, auxiliary, generator):
        scores = of.infer(view, auxiliary, generator)
        return scores if float(scores.abs().max()) > 0.3 else scores * math.nan

    outcomes = {it.name: it for it in suite.conform(replace(of, infer=nan_on_noise))}
    assert outcomes[NAMES["noise"]].state == "fail"
    assert "must answer with numbers, got NaN" in outcomes[NAMES["noise"]].reason


def test_who_knows_the_labels_beforehand_is_found_out():
    from fedsim.conformance import board

    def knows(view, auxiliary, generator):
        """Read the labels of the board's trials, as an attack that sees the truth would."""
        for seed in range(60):
            for size in (1, 9):
                for noise in (False, True):
                    shown, truth = board.shared_trial(seed, independent=noise, size=size)
                    if shown is view:
                        return torch.bincount(truth.labels, minlength=10)
        return llg(view, auxiliary, generator)

    assert "noise" in broken(knows)


def test_an_attack_that_raises_breaks_what_it_raised_on():
    def raises(view, auxiliary, generator):
        raise RuntimeError("<boom>\nsecond line")

    outcomes = suite.conform(attack_with(raises))
    assert {it.state for it in outcomes} == {"fail", "skipped"}  # nothing answers many views
    assert "RuntimeError" in outcomes[0].reason
    assert all("\n" not in it.reason for it in outcomes)
    with pytest.raises(ContractBroken, match="mine: must keep every property, got 7 broken"):
        suite.check_all("mine", outcomes)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("llgg", {}, "did you mean"),
        ("torch:rand", {}, "must be an Attack"),
        ("no_such_module:attack", {}, "must be an importable"),
        ("llg", {"speed": 3}, "must be a known key"),
        ("linkage-cosine", {}, "clients for, got linkage"),
    ],
)
def test_what_is_no_attack_is_refused(name, options, sentence):
    if name == "linkage-cosine":
        name = next(it.name for it in ATTACKS.values() if it.family == "linkage")
    with pytest.raises(ConfigError, match=sentence):
        suite.attack_of(name, options)


def test_the_command_exits_with_3_where_a_property_is_broken(tmp_path, monkeypatch, capsys):
    (tmp_path / "their_attack.py").write_text(
        "import torch\nfrom adversary.attack import Attack\n"
        "def infer(view, auxiliary, generator):\n    return torch.zeros(3)\n"
        'attack = Attack(name="theirs", family="label", infer=infer)\n'
    )
    monkeypatch.chdir(tmp_path)
    for name, code in (("their_attack:attack", 3), ("idlg", 0)):
        ended, out, err = fedsim(capsys, "conformance", name)
        assert ended == code, out + err
    assert out.count("Pass ") == 8
