import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from adversary.labels.counts import (
    expected_overlap,
    in_turn,
    largest_remainder,
    round_counts,
    round_rows,
    waterfill,
)


def filled(level, step, total):
    """One row of `waterfill`."""
    rise = torch.tensor([step], dtype=torch.float64)
    return waterfill(level.unsqueeze(0), rise, torch.tensor([total]))[0]


def one_by_one(level, step, total):
    """The loop of the LLG paper: a label to the lowest class, which rises."""
    level, counts = level.clone().double(), torch.zeros(len(level), dtype=torch.long)
    for _ in range(total):
        lowest = int(level.argmin())
        counts[lowest] += 1
        level[lowest] += step
    return counts


# Eighths are exact in floating point, so that ties are ties for both.
eighths = st.integers(-400, 400).map(lambda value: value / 8)


@given(st.lists(eighths, min_size=1, max_size=12), st.integers(1, 40), st.integers(0, 300))
def test_the_closed_form_equals_the_loop(levels, step, total):
    level = torch.tensor(levels, dtype=torch.float64)
    assert torch.equal(filled(level, step / 8, total), one_by_one(level, step / 8, total))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    st.floats(1e-6, 1e3),
    st.integers(0, 10_000),
)
def test_every_unit_is_handed_out(levels, step, total):
    counts = filled(torch.tensor(levels, dtype=torch.float64), step, total)
    assert int(counts.sum()) == total
    assert int(counts.min()) >= 0


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 2**32))
def test_rows_do_not_change_each_other(classes, rows, seed):
    stream = torch.Generator().manual_seed(seed)
    level = torch.randn(rows, classes, dtype=torch.float64, generator=stream)
    step = torch.rand(rows, dtype=torch.float64, generator=stream).round(decimals=1)
    total = torch.randint(100, (rows,), generator=stream)
    alone = [filled(*row) for row in zip(level, step.tolist(), total.tolist(), strict=True)]
    assert torch.equal(waterfill(level, step, total), torch.stack(alone))


def test_levels_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="level: must be finite"):
        filled(torch.tensor([math.nan, 1.0]), 1.0, 3)


def test_without_a_step_the_evidence_says_nothing():
    assert filled(torch.tensor([5.0, 0.0, 1.0]), 0.0, 7).tolist() == [3, 2, 2]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.integers(0, 500))
def test_largest_remainders_add_up_and_stay_within_one(weights, total):
    share = torch.tensor(weights, dtype=torch.float64)
    share /= share.sum()
    counts = largest_remainder(share, total, torch.randperm(len(weights)))
    assert int(counts.sum()) == total
    assert float((counts - share * total).abs().max()) < 1 + 1e-9


@pytest.mark.parametrize(("order", "expected"), [([0, 1, 2], [2, 1, 1]), ([2, 0, 1], [1, 1, 2])])
def test_the_order_decides_ties(order, expected):
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert largest_remainder(third, 4, torch.tensor(order)).tolist() == expected


@pytest.mark.parametrize(
    ("estimate", "total", "expected"),
    [
        ([2.2, 0.9, 0.9], 4, [2, 1, 1]),
        ([-3.0, 1.0, 3.0], 4, [0, 1, 3]),  # nothing below 0
        ([1.0, 1.5, 1.5], 2, [0, 1, 1]),  # (0.5, 0.75, 0.75)
        ([1.0, 3.0], 6, [1, 5]),  # (1.5, 4.5): the larger wins
        ([0.0, -1.0, 0.0], 7, [3, 2, 2]),  # nothing is said
    ],
)
def test_estimates_become_counts(estimate, total, expected):
    assert round_counts(torch.tensor(estimate), total).tolist() == expected


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=8), st.integers(0, 10_000))
def test_any_estimate_keeps_the_total(estimate, total):
    counts = round_counts(torch.tensor(estimate, dtype=torch.float64), total)
    assert int(counts.sum()) == total
    assert int(counts.min()) >= 0


@pytest.mark.parametrize(("total", "expected"), [(1, [0, 0, 1]), (5, [2, 0, 3])])
def test_units_are_dealt_in_turn(total, expected):
    assert in_turn(torch.tensor([2, 0]), total, 3).tolist() == expected


@pytest.mark.parametrize(("total", "classes"), [(1, 2), (8, 3), (64, 10), (3000, 100), (5, 1)])
def test_expected_overlap_is_the_sum_over_the_binomial(total, classes):
    found = expected_overlap(total, classes)
    k = torch.arange(total + 1).double()
    mass = torch.from_numpy(binom.pmf(k.numpy(), total, 1 / classes))
    for n in {0, 1, total // 3, total - 1, total}:
        expected = float(mass @ k.clamp(max=n))
        assert float(found[n]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(
    classes=st.integers(2, 40), totals=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    seed=st.integers(0, 99), coarse=st.booleans(),
)  # fmt: skip
def test_rows_are_rounded_as_each_alone(classes, totals, seed, coarse):
    stream = torch.Generator().manual_seed(seed)
    estimates = 5 * torch.randn(len(totals), classes, generator=stream, dtype=torch.float64)
    estimates = estimates.round() if coarse else estimates  # ties
    estimates[0] = -1.0  # nothing is left
    together = round_rows(estimates, torch.tensor(totals))
    alone = [round_counts(row, total) for row, total in zip(estimates, totals, strict=True)]
    assert torch.equal(together, torch.stack(alone))
