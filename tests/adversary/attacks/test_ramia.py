import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.ramia import ramia, ramia_centre, trimmed_mean
from adversary.attacks.rmia import rmia
from adversary.grading.families import FAMILIES
from adversary.grading.membership import grade_ranges
from adversary.members.ranges import centres, members
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, Ranges
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client

BOTH = pytest.mark.parametrize("infer", [ramia, ramia_centre], ids=["mean", "centre"])
POINTS = replace(
    cases.KNOWN,
    candidates=None,
    ranges=Ranges(cases.RECORDS[:100], cases.RECORDS[:100], cases.LABELS[:100]),
)


def view_of(local=cases.WEIGHTS):
    return client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], local)


@BOTH
@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_of_ranges_that_are_one_record_it_is_rmia(infer, local):
    view = view_of(local)
    guess = infer(view, POINTS, generator(0), a=0.5)
    torch.testing.assert_close(guess, rmia(view, cases.KNOWN, generator(0), a=0.5))


@pytest.mark.parametrize("missing", [1, 20])
@BOTH
def test_a_model_that_memorises_gives_ranges_away(infer, missing):
    """Records that share no parameter, and entries beside them that are not known."""
    model = nn.Linear(140, 2, bias=False)
    nn.init.zeros_(model.weight)
    records = torch.zeros(120, 140)
    records[:, :120] = torch.eye(120)
    records[:, 120:] = torch.rand(120, 20, generator=generator(0, "beside")) / 100
    labels, low, high = torch.arange(120) % 2, records[:40].clone(), records[:40].clone()
    low[:, 140 - missing :], high[:, 140 - missing :] = 0.0, 0.01
    auxiliary = Auxiliary(
        model, 2, inputs=records[40:], labels=labels[40:],
        ranges=Ranges(low, high, labels[:40]),
    )  # fmt: skip
    rows = torch.arange(0, 40, 3)
    view = client(model, records[rows], labels[rows], cases.WEIGHTS)
    truth = Truth(
        labels[rows], rows, ranges=torch.isin(torch.arange(40), rows), range_classes=labels[:40]
    )
    guess = infer(view, auxiliary, generator(0))
    assert grade_ranges(guess, truth) == pytest.approx({"auroc": 1.0, "advantage": 1.0})


def test_ranges_that_are_drawn_after_training_are_at_chance():
    values = []
    for seed in range(4):
        view = cases.round_of(seed, cases.WEIGHTS, clients=1)[0][0]
        drawn = torch.randperm(100, generator=generator(seed, "drawn"))
        hit = torch.isin(torch.arange(100), drawn[:50])
        ranges = Ranges(
            cases.RECORDS[200:300] - 0.1, cases.RECORDS[200:300] + 0.1, cases.LABELS[200:300]
        )
        truth = Truth(drawn[:50], drawn[:50], ranges=hit, range_classes=ranges.labels)
        guess = ramia(view, replace(POINTS, ranges=ranges), generator(0), samples=4, a=0.5)
        values.append(grade_ranges(guess, truth)["auroc"])
    error = (101 / (12 * 50 * 50 * 4)) ** 0.5  # of a mean of four AUROCs without a signal
    assert abs(sum(values) / 4 - 0.5) < 4 * error


def test_records_of_a_range_have_its_label_and_lie_in_it():
    ranges = Ranges(
        torch.tensor([[0.0, -9, 1, 1], [2.0, 0, -9, 0]]),
        torch.tensor([[0.0, 9, 1, 1.5], [2.0, 0, 9, 0]]),
        torch.tensor([1, 2]),
    )
    auxiliary = replace(POINTS, ranges=ranges)
    work = workspace(view_of(), auxiliary)
    for asking, samples in ((members(work, 30).candidates, 30), (centres(work).candidates, 1)):
        assert asking.labels.tolist() == [1] * samples + [2] * samples
        for place, part in enumerate(asking.inputs.split(samples)):
            assert bool((ranges.low[place] <= part).all() & (part <= ranges.high[place]).all())
    alike = auxiliary.inputs[auxiliary.labels == 1]
    centre = alike.mean(dim=0).clamp(ranges.low[0], ranges.high[0])
    torch.testing.assert_close(centres(work).candidates.inputs[0], centre)
    drawn = members(work, 30).candidates.inputs[:30, 1]
    assert bool(torch.isin(drawn, alike[:, 1].clamp(-9, 9)).all())


def test_a_label_without_auxiliary_records_has_those_of_any():
    few = replace(POINTS, inputs=torch.ones(5, 4), labels=torch.zeros(5, dtype=torch.int64))
    ranges = Ranges(torch.zeros(1, 4), torch.full((1, 4), 9.0), torch.tensor([2]))
    work = workspace(view_of(), replace(few, ranges=ranges))
    assert members(work, 3).candidates.inputs.tolist() == [[1.0] * 4] * 3
    assert members(work, 3).candidates.labels.tolist() == [2] * 3


def test_the_mean_leaves_out_shares_of_both_ends():
    values = torch.tensor([[5.0, 1, 4, 2, 9], [0, 0, 0, 0, 10]])
    assert trimmed_mean(values, 0.0, 0.0).tolist() == pytest.approx([4.2, 2.0])
    assert trimmed_mean(values, 0.4, 0.0).tolist() == pytest.approx([6.0, 10 / 3])
    assert trimmed_mean(values, 0.2, 0.2).tolist() == pytest.approx([11 / 3, 0.0])
    assert trimmed_mean(values, 0.9, 0.0).tolist() == pytest.approx([9.0, 10.0])
    assert trimmed_mean(values[:, :1], 0.5, 0.4).tolist() == [5.0, 0.0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"samples": 0}, "samples: must be at least 1, got 0"),
        ({"lowest": -0.1}, "lowest: must not be negative, .* got -0.1 and 0.0"),
        ({"lowest": 0.6, "highest": 0.4}, "lowest: must .* got 0.6 and 0.4"),
        ({"a": 2.0}, r"a: must be in \[0, 1\], got 2.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, sentence):
    with pytest.raises(NotApplicable, match=sentence):
        ramia(view_of(), POINTS, generator(0), **options)


def test_without_truth_about_ranges_nothing_is_graded():
    guess = torch.zeros(3)
    values = grade_ranges(guess, Truth(torch.zeros(1), torch.zeros(1)))
    assert all(math.isnan(value) for value in values.values())
    blind = FAMILIES["range"].blind(view_of(), replace(POINTS, ranges=None), generator(0))
    assert blind.shape == (0,)
    asked = Candidates(POINTS.ranges.low, POINTS.ranges.labels)
    assert len(FAMILIES["range"].blind(view_of(), POINTS, generator(0))) == len(asked.labels)
