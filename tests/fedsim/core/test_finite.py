"""Whether all entries are finite, by one sum: the same as looking at each."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsim.core.params import all_finite

WIDTHS = {torch.float16: 16, torch.float32: 32, torch.float64: 64}


@pytest.mark.twin
@pytest.mark.parametrize("dtype", WIDTHS)
@given(data=st.data())
def test_the_sum_says_what_a_look_at_each_entry_says(dtype, data):
    entries = data.draw(st.lists(st.floats(width=WIDTHS[dtype]), max_size=6))
    values = torch.tensor(entries, dtype=dtype)
    assert all_finite(values) == bool(torch.isfinite(values).all())


@pytest.mark.worked
def test_sums_that_overflow_or_cancel():
    largest = torch.finfo(torch.float32).max
    assert all_finite(torch.tensor([largest, largest]))
    assert not all_finite(torch.tensor([torch.inf, -torch.inf]))
    assert not all_finite(torch.tensor([1.0, torch.nan]))
    assert not all_finite(torch.tensor([largest, largest, -torch.inf]))
    assert all_finite(torch.zeros(0))
    assert all_finite(torch.tensor(True))
