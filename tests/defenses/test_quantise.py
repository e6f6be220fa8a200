import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from defenses import quantise
from fedsim.core.rng import generator

NUM = 5000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_two_bits_upload_nothing_or_the_whole_norm(dtype):
    update = {"a": torch.tensor([3.0, -4.0] + [0.0] * 50, dtype=dtype)}  # norm 5, one level
    draws = [quantise(bits=2).apply(update, {}, generator(seed))[0]["a"] for seed in range(200)]
    seen = torch.stack(draws).to(torch.float64)
    assert draws[0].dtype == dtype
    assert set(seen[:, 0].tolist()) == {0.0, 5.0}
    assert set(seen[:, 1].tolist()) == {0.0, -5.0}
    assert not seen[:, 2:].any()


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_its_mean_is_the_update(bits):
    entries = torch.tensor([3.0, -4.0, 0.01, -0.3, 0.0], dtype=torch.float64)
    update = {str(place): entries for place in range(NUM)}
    sent, _ = quantise(bits=bits).apply(update, {}, generator(0, bits))
    step = float(entries.norm()) / (2 ** (bits - 1) - 1)
    share = entries.abs() / step % 1
    error = step * (share * (1 - share) / NUM).sqrt()
    mean = torch.stack(list(sent.values())).mean(0)
    assert ((mean - entries).abs() <= 4 * error + 1e-9).all()


@given(st.integers(2, 16), st.integers(0, 30), st.sampled_from([torch.float32, torch.float64]))
def test_every_entry_is_one_of_the_two_levels_beside_it(bits, seed, dtype):
    value = torch.randn(30, generator=generator(seed), dtype=dtype)
    sent, _ = quantise(bits=bits).apply({"a": value}, {}, generator(seed))
    levels = 2 ** (bits - 1) - 1
    step = value.norm() / levels
    symbols = sent["a"] / step
    torch.testing.assert_close(symbols, symbols.round(), rtol=0, atol=1e-2)
    assert float(symbols.abs().max()) <= levels + 1e-2
    assert ((sent["a"] - value).abs() <= step * 1.01).all()


def test_a_single_entry_a_zero_and_nothing_at_all_stay():
    update = {"one": torch.tensor(-2.0), "zero": torch.zeros(3), "none": torch.zeros(0, 4)}
    sent, _ = quantise(bits=2).apply(update, {}, generator(0))
    torch.testing.assert_close(sent, update)


@pytest.mark.parametrize("bits", [-1, 0, 1, 17])
def test_there_are_2_to_16_bits(bits):
    with pytest.raises(ValueError, match=f"^bits: must be 2 to 16, got {bits}$"):
        quantise(bits=bits)


def test_its_standard_deviation_falls_with_the_bits():
    value = torch.randn(5000, generator=generator(0))
    errors = []
    for bits in (4, 6, 8):
        sent, _ = quantise(bits=bits).apply({"a": value}, {}, generator(1))
        errors.append(float((sent["a"] - value).norm()))
    assert errors[0] > errors[1] > errors[2]
    step = float(value.norm()) / (2**7 - 1)
    share = value.abs() / step % 1
    expected = step * math.sqrt(float((share * (1 - share)).sum()))
    assert errors[2] == pytest.approx(expected, rel=0.05)
