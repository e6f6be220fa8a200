import math
from dataclasses import replace

import pytest
import torch

from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.grading import answers, leakage, selection
from adversary.grading.answers import Answer
from adversary.grading.families import FAMILIES, Family
from adversary.grading.truth import read_coins, read_truth, read_truths
from fedsim.config import Part
from fedsim.core.errors import BadRecording, ConfigError, NotApplicable
from fedsim.core.files import save_tensors
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.truths import save_own, save_shared
from fedsim.core.types import Auxiliary, LocalTraining
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient, random_attack

MODEL = bilinear(3)
LABELS = torch.tensor([0, 0, 1, 2])
TRUTH = Truth(LABELS, LABELS)
VIEW = observe(plain_gradient(MODEL, torch.rand(4, 4), LABELS), 4, round_=3, client="7")
AUXILIARY = auxiliary_of(MODEL, 3)


def refuse(view, auxiliary, generator):
    raise ValueError("refuse: this update cannot be attacked")


def test_rows_hold_value_and_blind_value():
    attacks = selection.build([Part(name="llg"), Part(name="idlg")], AUXILIARY)
    rows = []
    for answer in answers.attack_view(VIEW, attacks, AUXILIARY, seed=0):
        leaks, failures = leakage.grade(answer, Truth(LABELS, LABELS))
        assert not failures
        rows += leaks
    assert [(row.attack, row.metric) for row in rows] == [
        (name, metric) for name in ("llg", "idlg") for metric in FAMILIES["label"].metrics
    ]
    assert {(row.round, row.client, row.family) for row in rows} == {(3, "7", "label")}
    blinds = {row.blind for row in rows if row.metric == "asr"}
    assert len(blinds) == 1
    assert rows[5].value in (0.25, 0.5)


def test_without_truth_there_is_an_answer_but_no_value():
    [answer] = answers.attack_view(VIEW, [random_attack], AUXILIARY, seed=0)
    assert int(answer.guess.sum()) == 4
    leaks, _ = leakage.grade(answer, None)
    assert [(leak.value, leak.blind) for leak in leaks] == [(None, None)] * 5
    assert {(leak.outcome, leak.reason) for leak in leaks} == {("no truth", None)}


def test_an_attack_that_fails_is_a_row_with_its_reason_and_the_others_go_on():
    attacks = [Attack(name="refuse", family="label", infer=refuse), random_attack]
    first, second = answers.attack_view(VIEW, attacks, AUXILIARY, seed=0)
    leaks, failure = leakage.grade(first, Truth(LABELS, LABELS))
    assert [leak.value for leak in leaks] == [None] * 5
    assert leaks[0].blind is not None
    assert (failure.attack, failure.kind, failure.client) == ("refuse", "failed", "7")
    assert {(leak.outcome, leak.reason) for leak in leaks} == {("failed", failure.reason)}
    assert leakage.grade(first, None)[0][0].outcome == "failed"  # with or without truth
    assert failure.reason.startswith(
        "ValueError: refuse: this update cannot be attacked (grading/test_leakage.py:"
    )
    assert second.guess is not None


def test_an_answer_that_is_no_number_is_a_failure():
    def half(view, auxiliary, generator):
        return torch.tensor([0.5, math.nan], dtype=torch.float64)

    [answer] = answers.attack_view(
        VIEW, [Attack(name="half", family="membership", infer=half)], AUXILIARY, seed=0
    )
    assert answer.guess is None
    assert not answer.refused
    assert "guess: must be numbers, got 1 NaN of 2 values" in (answer.reason or "")


def test_an_attack_that_does_not_apply_refuses_and_has_not_failed():
    def other_models(view, auxiliary, generator):
        raise NotApplicable("model: must be a transformer, got an MLP")

    attack = Attack(name="picky", family="label", infer=other_models)
    [answer] = answers.attack_view(VIEW, [attack], AUXILIARY, seed=0)
    leaks, note = leakage.grade(answer, Truth(LABELS, LABELS))
    assert note.kind == "refused"
    sentence = "model: must be a transformer, got an MLP"
    assert {(leak.outcome, leak.value, leak.reason) for leak in leaks} == {
        ("refused", None, sentence)
    }


@pytest.mark.parametrize(
    ("name", "bias", "scale", "kind"),
    [
        ("idlg", True, 1.0, None),
        ("idlg", True, math.nan, "failed"),  # made for such a model; this update defeats it
        ("llbg", False, 1.0, None),  # reads heads without a bias by their rows' sums
        ("r-gap", True, 1.0, "refused"),  # made for one example
        ("spear", True, 0.0, "failed"),
    ],
)
def test_attacks_refuse_what_they_are_not_made_for_and_fail_on_what_defeats_them(
    name, bias, scale, kind
):
    model = bilinear(3, bias=bias)
    gradient = plain_gradient(model, torch.rand(4, 4), LABELS)
    view = observe({name: scale * value for name, value in gradient.items()}, 4, sent=model)
    [answer] = answers.attack_view(view, [ATTACKS[name]], auxiliary_of(model, 3), seed=0)
    _, note = leakage.grade(answer, None)
    assert (note and note.kind) == kind, note


def test_a_metric_that_the_truth_does_not_define_is_no_failure():
    family = replace(FAMILIES["label"], grade=lambda *_: {"asr": math.nan, "skill": 0.5})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "label", family)
        [answer] = answers.attack_view(VIEW, [random_attack], AUXILIARY, seed=0)
        leaks, _ = leakage.grade(answer, TRUTH)
    assert [leak.outcome for leak in leaks[:2]] == ["undefined", "graded"]


def test_options_reach_the_attack_and_wrong_ones_are_one_sentence():
    [attack] = selection.build([Part.model_validate({"name": "llg", "scale": "exact"})], AUXILIARY)
    assert attack.infer.keywords == {"scale": "exact"}  # type: ignore[attr-defined]
    for part, sentence in [
        ({"name": "llgg"}, "attack.name: must be a known name, got 'llgg'; did you mean 'llg'"),
        ({"name": "llg", "scal": 1}, "attack.llg.scal: .*did you mean 'scale'"),
        ({"name": "llg", "scale": "loose"}, "attack.llg.scale: .*'paper' or 'exact'"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            selection.build([Part.model_validate(part)], AUXILIARY)


def test_an_attack_says_what_it_needs():
    part = Part(name="tests.adversary.grading.test_leakage:needy")
    with pytest.raises(ConfigError, match="needs auxiliary inputs, got none"):
        selection.build([part], AUXILIARY)


needy = Attack(name="needy", family="label", infer=refuse, needs=("inputs",))


def test_truth_is_read_or_absent_or_named_as_damaged(tmp_path):
    assert read_truth(tmp_path, 1, "0") is None
    path = tmp_path / "0001" / "0.safetensors"
    owner = {"round": 1, "client": "0"}
    save_tensors(path, {"labels": LABELS, "indices": LABELS + 1}, owner)
    truth = read_truth(tmp_path, 1, "0")
    assert truth is not None
    assert torch.equal(truth.labels, LABELS)
    save_tensors(path, {"labels": LABELS.to(torch.uint8)}, owner)  # another app's: no rows
    truth = read_truth(tmp_path, 1, "0")
    assert torch.equal(truth.labels, LABELS)
    assert len(truth.indices) == 0
    save_tensors(path, {"indices": LABELS}, owner)
    with pytest.raises(BadRecording, match=r"0\.safetensors: must hold labels, got none"):
        read_truth(tmp_path, 1, "0")
    for labels, said in (
        (-LABELS, r"shape \(\d+,\) of"),
        (LABELS.float(), "float32"),
        (LABELS[None], "1, "),
        (LABELS + 10**9, "to 1e"),
        (LABELS * 1j, "complex64"),
    ):
        save_tensors(path, {"labels": labels}, owner)
        with pytest.raises(BadRecording, match=f"labels of the truth must be numbers .*{said}"):
            read_truth(tmp_path, 1, "0")
    save_tensors(path, {"labels": LABELS}, owner)
    with pytest.raises(BadRecording, match=rf"classes, {int(LABELS.max())}, got"):
        read_truth(tmp_path, 1, "0", classes=int(LABELS.max()))
    for indices in (LABELS.repeat(2), LABELS - 10, LABELS.float()):
        save_tensors(path, {"labels": LABELS, "indices": indices}, owner)
        with pytest.raises(BadRecording, match="indices of the truth must be rows"):
            read_truth(tmp_path, 1, "0", rows=100)
    save_tensors(path, {"labels": LABELS, "coins": LABELS + 2}, owner)
    with pytest.raises(BadRecording, match="must be one list of zeros and ones"):
        read_coins(tmp_path, 1, "0")
    for other in ({"round": 2, "client": "0"}, {"round": 1, "client": "1"}):
        save_tensors(path, {"labels": LABELS}, other)
        with pytest.raises(BadRecording, match="must name no other round or client"):
            read_truth(tmp_path, 1, "0")


def untold(local):
    """Return the view of a client that told no number of examples, and a full adversary."""
    labels = torch.tensor([0] * 30 + [1] * 9 + [2])
    inputs = torch.rand(len(labels), 4, generator=generator(0, "untold"))
    there = torch.arange(60) % 3
    known = Auxiliary(
        MODEL, 3, inputs=torch.rand(60, 4, generator=generator(1, "untold")), labels=there
    )
    view = observe(plain_gradient(MODEL, inputs, labels), None, local=local, sent=MODEL)
    return view, known, Truth(labels, labels)


READ = [name for name, a in ATTACKS.items() if a.family == "label" and a.kinds is None]


@pytest.mark.parametrize("name", READ)
def test_a_gradient_of_an_unknown_number_of_examples_gives_proportions(name):
    view, known, truth = untold(LocalTraining(0.1, 40, upload="gradient"))
    [answer] = answers.attack_view(view, [ATTACKS[name]], known, seed=0)
    assert answer.reason is None
    assert int(answer.guess.sum()) == 1000
    leaks, note = leakage.grade(answer, truth)
    assert (note.attack, note.kind, note.client) == (name, "note", "0")
    assert note.reason == "num_examples: not told, so the answer is proportions (per mille)"
    values = [leak.value or 0.0 for leak in leaks]
    assert values[2] == 0.0  # never exact
    if name in ("eb-gls", "rlu"):
        assert values[0] > 0.9


@pytest.mark.parametrize("name", ["eb-gls", "llg", "rlu", "random"])
def test_weights_of_an_unknown_number_of_examples_have_no_scale(name):
    view, known, truth = untold(LocalTraining(0.1, 8))
    [answer] = answers.attack_view(view, [ATTACKS[name]], known, seed=0)
    assert answer.guess is None
    leaks, failure = leakage.grade(answer, truth)
    assert failure.kind == "refused"
    assert failure.reason == "num_examples: must be told by the client, got none"
    assert leaks[0].value is None
    assert leaks[0].blind is not None


def summed(guesses, truths):
    return {"total": float(sum(guesses)) / sum(len(truth.labels) for truth in truths)}


TOTAL = Family(
    name="total",
    metrics=("share",),
    blind=lambda *_: torch.tensor(0.0),
    grade=lambda guess, truth: summed([guess], [truth]) | {"share": float(guess)},
    pool=summed,
    pooled=("total",),
    ceiling=lambda truths: {"share": 4.0, "total": float(sum(len(t.labels) for t in truths))},
)


def pooled(monkeypatch, guesses, truths):
    monkeypatch.setitem(FAMILIES, "total", TOTAL)
    attack = Attack(name="sum", family="total", infer=refuse)
    answers = [
        Answer(
            view=VIEW,
            attack=attack,
            guess=None if g is None else torch.tensor(g),
            blind=torch.tensor(1.0),
            seconds=2.0,
            reason="why" if g is None else None,
        )
        for g in guesses
    ]
    return leakage.pool(answers, truths)


@pytest.mark.parametrize(
    ("guesses", "truths", "numbers", "outcome", "reason"),
    [
        ((4.0, 8.0), [TRUTH, TRUTH], (1.5, 0.25, 8.0), "graded", None),
        # who was not answered is left out, and who keeps the truth
        ((4.0, None), [TRUTH, TRUTH], (1.0, 0.25, 4.0), "graded", "pooled over 1 of 2 clients"),
        ((4.0, 8.0), [TRUTH, None], (1.0, 0.25, 4.0), "graded", "pooled over 1 of 2 clients"),
        ((4.0, 8.0), [None, None], (None,) * 3, "no truth", None),
        ((None, 8.0), [TRUTH, None], (None,) * 3, "no truth", None),
        ((None, None), [TRUTH, TRUTH], (None,) * 3, "failed", "why"),
    ],
)
def test_a_row_is_pooled_over_the_clients_that_can_be_graded(
    monkeypatch, guesses, truths, numbers, outcome, reason
):
    [row] = pooled(monkeypatch, guesses, truths)
    assert (row.client, row.metric, row.round, row.seconds) == (None, "total", 3, 4.0)
    assert (row.value, row.blind, row.ceiling) == numbers
    assert (row.outcome, row.reason) == (outcome, reason)


def test_nothing_is_pooled_where_nobody_answered_or_the_family_pools_nothing():
    assert leakage.pool([], []) == []
    [answer] = answers.attack_view(VIEW, [random_attack], AUXILIARY, seed=0)
    assert leakage.pool([answer], [TRUTH]) == []


def test_a_row_holds_its_ceiling_where_it_is_graded():
    [answer] = answers.attack_view(VIEW, [random_attack], AUXILIARY, seed=0)
    assert {row.ceiling for row in leakage.grade(answer, TRUTH)[0]} == {1.0}
    assert {row.ceiling for row in leakage.grade(answer, None)[0]} == {None}


def shared_truths(tmp_path, about=None, **changes):
    """Truths of three clients in one file, of one of them changed."""
    plain = {"labels": torch.tensor([1, 2, 2]), "indices": torch.tensor([7, 8])}
    truths = {client: (dict(plain), {}) for client in "abc"}
    truths["b"] = {**plain, **changes}, about or {}
    save_shared(tmp_path, 1, truths)
    return plain


def test_truths_in_one_file_are_read_together(tmp_path):
    plain = shared_truths(tmp_path)
    save_own(tmp_path, 1, "own", plain, {})
    names = ["c", "own", "a", "nobody", "b"]
    truths = read_truths(tmp_path, 1, names, classes=3, rows=9)
    assert list(truths) == names
    for client, truth in truths.items():
        alone = read_truth(tmp_path, 1, client, classes=3, rows=9)
        assert (truth is None) == (alone is None) == (client == "nobody")
        if truth is not None and alone is not None:
            assert torch.equal(truth.labels, alone.labels)
            assert torch.equal(truth.indices, alone.indices)
    assert read_truths(tmp_path, 2, ["a"]) == {"a": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.tensor([1, 2, 3])},
        {"labels": torch.tensor([1, -1, 0])},
        {"labels": torch.tensor([[1]])},
        {"labels": torch.tensor([1.0, 2.0])},
        {"indices": torch.tensor([9])},
        {"indices": torch.tensor([1, 2, 3, 4])},
        {"about": {"client": "a"}},
        {"about": {"round": "2"}},
    ],
)
def test_a_wrong_truth_among_others_is_refused_as_alone(tmp_path, changes):
    shared_truths(tmp_path, **changes)
    with pytest.raises(BadRecording) as alone:
        read_truth(tmp_path, 1, "b", classes=3, rows=9)
    with pytest.raises(BadRecording) as among:
        read_truths(tmp_path, 1, list("abc"), classes=3, rows=9)
    assert str(among.value) == str(alone.value)


def test_truths_of_other_types_are_read_too(tmp_path):
    shared_truths(tmp_path, labels=torch.tensor([1, 2], dtype=torch.uint8), indices=torch.zeros(0))
    save_shared(tmp_path, 1, {"b": ({"labels": torch.tensor([1], dtype=torch.uint8)}, {})})
    truths = read_truths(tmp_path, 1, list("abc"))
    assert [len(truths[client].labels) for client in "abc"] == [3, 1, 3]
    assert truths["b"].labels.dtype == torch.int64
