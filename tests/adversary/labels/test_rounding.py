import pytest
import torch

from adversary.labels.rounding import Remainder, is_signs, rounding_variance, step_of, variances
from defenses.quantise import quantise
from defenses.sign import sign
from fedsim.core.rng import generator


@pytest.mark.worked
def test_the_step_of_rounded_entries_is_read_off():
    rounded = 0.25 * torch.tensor([0.0, 1.0, -3.0, 2.0])
    assert step_of(rounded) == pytest.approx(0.25)
    assert step_of(torch.randn(1000, generator=generator(0, "entries"))) is None
    assert step_of(torch.zeros(4)) is None
    assert step_of(torch.cat([rounded, torch.full((4096,), 0.1)])) is None


@pytest.mark.worked
def test_signs_are_entries_of_one_size():
    assert is_signs(torch.tensor([0.5, -0.5]))
    assert not is_signs(torch.tensor([0.5, 0.0]))
    assert not is_signs(torch.tensor([0.5]))
    assert not is_signs(torch.zeros(3))


@pytest.mark.twin
@pytest.mark.parametrize("std", [0.05, 0.3, 2.0])
def test_the_variance_of_rounding_is_that_of_draws(std):
    stream = generator(0, "rounding", std)
    x = std * torch.randn(200_000, generator=stream, dtype=torch.float64)
    up = torch.rand(x.shape, generator=stream, dtype=torch.float64) < x - x.floor()
    drawn = float((x.floor() + up - x).square().mean())
    assert rounding_variance(1.0, std**2) == pytest.approx(drawn, rel=0.03)


@pytest.mark.twin
def test_noise_of_a_small_tensor_is_that_of_large_ones_before_rounding():
    stream = generator(0, "tensors")
    noise = {n: 0.2 * torch.randn(k, generator=stream) for n, k in (("w", 40_000), ("b", 10))}
    rounded, _ = quantise(bits=6).apply(noise, {}, stream)
    as_given = lambda v: Remainder(float(v.square().sum()), float(v.square().sum()), len(v), 0.0,
                                   len(v), step_of(v))  # fmt: skip
    found = variances({name: as_given(value) for name, value in rounded.items()})
    assert found["w"] == pytest.approx(float(rounded["w"].square().mean()), rel=0.01)
    assert found["b"] == pytest.approx(0.04, rel=0.15)
    assert found["w"] > 4 * found["b"]


@pytest.mark.worked
def test_signs_of_few_entries_have_the_variance_of_their_size():
    signs, _ = sign().apply({"b": torch.randn(8, generator=generator(1, "b"))}, {}, generator(0))
    square = float(signs["b"].square().sum())
    found = variances({"b": Remainder(square, square, 4, 0.0, 8, signs=True)})
    assert found["b"] == pytest.approx(square / 8)
