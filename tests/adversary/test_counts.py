import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.counts import largest_remainder, waterfill


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
    assert torch.equal(waterfill(level, step / 8, total), one_by_one(level, step / 8, total))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    st.floats(1e-6, 1e3),
    st.integers(0, 10_000),
)
def test_every_unit_is_handed_out(levels, step, total):
    counts = waterfill(torch.tensor(levels, dtype=torch.float64), step, total)
    assert int(counts.sum()) == total
    assert int(counts.min()) >= 0


def test_without_a_step_the_evidence_says_nothing():
    assert waterfill(torch.tensor([5.0, 0.0, 1.0]), 0.0, 7).tolist() == [3, 2, 2]


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
