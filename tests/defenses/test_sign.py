import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from defenses import sign
from fedsim.core.params import norm
from fedsim.core.rng import generator

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_entry_becomes_the_mean_magnitude_of_its_tensor(dtype):
    update = {
        "a": torch.tensor([1.0, -3.0, 2.0, -2.0], dtype=dtype),
        "b": torch.tensor([[-8.0]], dtype=dtype),
        "c": torch.tensor(5.0, dtype=dtype),
    }
    sent, _ = sign().apply(update, {}, generator(0))
    torch.testing.assert_close(
        sent,
        {
            "a": torch.tensor([2.0, -2.0, 2.0, -2.0], dtype=dtype),
            "b": torch.tensor([[-8.0]], dtype=dtype),
            "c": torch.tensor(5.0, dtype=dtype),
        },
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fixed_magnitude_holds_for_every_tensor(dtype):
    update = {"a": torch.tensor([0.1, -9.0], dtype=dtype), "b": torch.zeros(300, dtype=dtype)}
    sent, _ = sign(magnitude=0.5).apply(update, {}, generator(0))
    assert sent["a"].tolist() == [0.5, -0.5]
    assert sent["b"].dtype == dtype
    assert set(sent["b"].tolist()) == {0.5, -0.5}


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zeros_are_no_third_symbol_and_fall_to_either_side(zero):
    value = torch.full((10_001,), zero)
    value[0] = -10_001.0
    sent, _ = sign().apply({"a": value}, {}, generator(0, zero))
    assert set(sent["a"].tolist()) == {1.0, -1.0}
    assert float(sent["a"][0]) == -1.0
    assert abs(float(sent["a"][1:].mean())) < 4 / math.sqrt(10_000)


def test_the_smallest_numbers_keep_their_sign_beside_a_zero():
    tiny = torch.finfo(torch.float32).smallest_normal
    value = torch.tensor([tiny, -tiny, 0.0, 1e30] * 100)
    sent, _ = sign(magnitude=1.0).apply({"a": value}, {}, generator(0))
    assert (sent["a"][0::4] == 1).all()
    assert (sent["a"][1::4] == -1).all()
    assert len(sent["a"][2::4].unique()) == 2


def test_nothing_but_zeros_stays_zero_and_no_entries_stay_none():
    sent, _ = sign().apply({"a": torch.zeros(5), "b": torch.zeros(0, 3)}, {}, generator(0))
    assert not sent["a"].any()
    assert sent["b"].shape == (0, 3)


@given(st.integers(0, 50), st.integers(1, 60))
def test_the_norm_does_not_grow(seed, size):
    update = {"a": torch.randn(size, generator=generator(seed)), "b": torch.ones(size)}
    sent, _ = sign().apply(update, {}, generator(seed))
    assert float(norm(sent)) <= float(norm(update)) * (1 + 1e-6)
    assert sign().bound(2.0) == 2.0
    assert sign(magnitude=0.1).bound(2.0) == math.inf


@pytest.mark.parametrize("magnitude", [0.0, -1.0, math.inf, math.nan])
def test_the_magnitude_must_be_positive(magnitude):
    with pytest.raises(ValueError, match="^magnitude: must be finite and > 0, got "):
        sign(magnitude=magnitude)
