"""A round's answers and grades all at once, against one by one."""

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.grading import answers, counts, leakage
from fedsim.core.errors import BadRecording, NotApplicable, Remark
from fedsim.core.ground_truth import Truth
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient

CLASSES = 4
MODEL = bilinear(CLASSES)
AUXILIARY = auxiliary_of(MODEL, CLASSES)


def clients(count, *, spoilt=()):
    """Views and truths of a round's clients; the updates of some are NaN."""
    stream = torch.Generator().manual_seed(1)
    for client in range(count):
        labels = torch.randint(CLASSES, (1 + client % 5,), generator=stream)
        gradient = plain_gradient(MODEL, torch.rand(len(labels), 4, generator=stream), labels)
        if client in spoilt:
            gradient = {name: torch.full_like(value, torch.nan) for name, value in gradient.items()}
        yield observe(gradient, len(labels), client=str(client)), Truth(labels, labels)


def rows_of(pairs, attacks, *, together):
    """The ledger's rows without the seconds, and the notes."""
    views = [view for view, _ in pairs]
    given = answers.attack_together(views, attacks, AUXILIARY, 0) if together else {}
    blinds = answers.blind_together(views, attacks, AUXILIARY, 0) if together else {}
    grades, alone = leakage.Grades(), []
    for view, truth in pairs:
        for answer in answers.attack_view(view, attacks, AUXILIARY, 0, given, blinds):
            grades.add(answer, truth)
            alone.append(leakage.grade(answer, truth))
    results = grades.results() if together else alone
    return [([replace(row, seconds=0.0) for row in rows], note) for rows, note in results], given


@pytest.mark.parametrize("spoilt", [(), (2,), (0, 5, 6), tuple(range(9))])
def test_a_round_is_graded_as_client_by_client(spoilt):
    attacks = [ATTACKS[name] for name in ("llg", "random", "idlg", "zlg", "llbg")]
    pairs = list(clients(9, spoilt=spoilt))
    pairs[4] = (pairs[4][0], None)
    pairs[3] = (replace(pairs[3][0]), Truth(torch.tensor([1, 1, 2, 3, 0, 0, 2]), torch.zeros(7)))
    rows, given = rows_of(pairs, attacks, together=True)
    assert rows == rows_of(pairs, attacks, together=False)[0]
    fit = {str(client) for client in range(9) if client not in spoilt}
    assert set(given) == {(name, client) for name in ("llg", "idlg", "zlg") for client in fit}
    assert {note.client for _, note in rows if note and note.kind == "failed"} == {
        str(client) for client in spoilt
    }


def attack_that(infer_all):
    """LLG alone, and something else together."""
    return replace(ATTACKS["llg"], infer_all=infer_all)


def test_a_refusal_of_all_is_not_repeated_for_halves():
    calls = []

    def refuse(views, auxiliary):
        calls.append(len(views))
        raise NotApplicable("model: must have a head, got none")

    views = [view for view, _ in clients(5)]
    assert answers.attack_together(views, [attack_that(refuse)], AUXILIARY, 0) == {}
    assert calls == [5]


def test_a_remark_or_a_wrong_number_of_answers_is_left_to_the_view_alone():
    def remark(views, auxiliary):
        warnings.warn("so so", Remark, stacklevel=2)
        return torch.ones(len(views), CLASSES, dtype=torch.long)

    views = [view for view, _ in clients(3)]
    few = attack_that(lambda views, _: torch.ones(len(views) + 1, CLASSES))
    nan = attack_that(lambda views, _: torch.full((len(views), CLASSES), torch.nan))
    for attack in (attack_that(remark), few, nan):
        assert answers.attack_together(views, [attack], AUXILIARY, 0) == {}


def test_a_damaged_recording_is_not_passed_over():
    def read(views, auxiliary):
        raise BadRecording("file: damaged")

    with pytest.raises(BadRecording):
        answers.attack_together([v for v, _ in clients(2)], [attack_that(read)], AUXILIARY, 0)


def test_only_views_that_are_due_are_answered_and_large_models_in_parts(monkeypatch):
    sizes = []

    def count(views, auxiliary):
        sizes.append(len(views))
        return torch.ones(len(views), CLASSES, dtype=torch.long)

    size = sum(value.numel() for value in MODEL.state_dict().values())
    monkeypatch.setattr(answers, "MOST", 2 * size)
    views = [view for view, _ in clients(5)]
    given = answers.attack_together(views, [attack_that(count)], AUXILIARY, 0)
    assert (sizes, len(given)) == ([2, 2, 1], 5)
    chosen = replace(attack_that(count), clients=("1", "9"))
    assert set(answers.attack_together(views, [chosen], AUXILIARY, 0)) == {("llg", "1")}
    assert answers.attack_together([], [chosen], AUXILIARY, 0) == {}
    alone = Attack(name="alone", family="label", infer=ATTACKS["llg"].infer)
    assert answers.attack_together(views, [alone], AUXILIARY, 0) == {}


@st.composite
def graded(draw):
    """Guesses and truths of one number of classes; some guesses do not add up."""
    classes = draw(st.integers(1, 12))
    labels = st.lists(st.integers(0, classes - 1), min_size=1, max_size=30)
    pairs = draw(st.lists(st.tuples(labels, labels, st.booleans()), min_size=1, max_size=6))
    for guess, used, right in pairs:
        named = used if right else guess
        yield (
            torch.bincount(torch.tensor(named), minlength=classes),
            Truth(torch.tensor(used), torch.tensor(used)),
        )


@pytest.mark.twin
@given(graded().map(list))
def test_all_grades_at_once_are_those_one_by_one_to_the_bit(pairs):
    guesses, truths = zip(*pairs, strict=True)
    alone = [counts.grade(guess, truth) for guess, truth in pairs]
    assert counts.grade_all(guesses, truths) == alone
    shares = [guess.double() / guess.sum() for guess in guesses]
    assert counts.grade_all(shares, truths) == [
        counts.grade(share, truth) for share, truth in zip(shares, truths, strict=True)
    ]


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 0, 3, 1, 0]), torch.tensor([2, -100])])
def test_blind_counts_at_once_are_as_one_by_one(labels):
    auxiliary = replace(AUXILIARY, labels=labels)
    views = [observe({}, size, client=str(size)) for size in (1, 2, 7, 10, 33)]
    views.append(observe({}, None, client="tells none"))
    streams = lambda: [torch.Generator().manual_seed(place) for place in range(len(views))]
    alone = [
        counts.blind(view, auxiliary, stream) for view, stream in zip(views, streams(), strict=True)
    ]
    assert torch.equal(counts.blind_all(views, auxiliary, streams()), torch.stack(alone))
