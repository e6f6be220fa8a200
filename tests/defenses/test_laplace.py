import math

import pytest
import torch
from scipy.stats import kstest

from defenses import laplace
from fedsim.core.rng import generator


@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_the_noise_has_the_promised_distribution(scale):
    update = {"a": torch.ones(200, 100), "b": torch.ones(20_000, dtype=torch.float64)}
    noisy, _ = laplace(scale=scale).apply(update, {}, generator(0, "noise"))
    noise = torch.cat([(noisy[name] - 1).double().flatten() for name in update]) / scale
    assert kstest(noise.numpy(), "laplace").pvalue > 1e-3
    # E x = 0, Var x = 2; E |x| = 1, Var |x| = 1; E x² = 2, Var x² = 20
    for sample, mean, variance in (
        (noise, 0, 2),
        (noise.abs(), 1, 1),
        (noise.square(), 2, 20),
    ):
        assert abs(float(sample.mean()) - mean) < 4 * math.sqrt(variance / len(noise))


def test_no_noise_is_no_change_and_every_entry_has_its_own():
    update = {"a": torch.zeros(500)}
    same, _ = laplace(scale=0.0).apply(update, {}, generator(0))
    assert torch.equal(same["a"], update["a"])
    noisy, _ = laplace(scale=1.0).apply(update, {}, generator(0))
    assert len(noisy["a"].unique()) > 490


@pytest.mark.parametrize(
    ("draw", "noise"),
    [
        (0.0, -53 * math.log(2)),  # the smallest draw
        (0.25, -math.log(2)),
        (0.5, 0.0),
        (0.75, math.log(2)),
        (1 - 2**-53, 53 * math.log(2)),  # the largest draw
    ],
)
def test_the_smallest_and_the_largest_draw_are_finite(monkeypatch, draw, noise):
    monkeypatch.setattr(
        torch, "rand", lambda shape, **_: torch.full(shape, draw, dtype=torch.float64)
    )
    update = {"a": torch.zeros(2, dtype=torch.float64)}
    noisy, _ = laplace(scale=1.0).apply(update, {}, generator(0))
    torch.testing.assert_close(noisy["a"], torch.full((2,), noise, dtype=torch.float64))


@pytest.mark.parametrize("scale", [-0.1, math.inf, math.nan])
def test_the_scale_must_be_a_number(scale):
    with pytest.raises(ValueError, match="^scale: must be finite and ≥ 0, got "):
        laplace(scale=scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_shapes_stay(dtype):
    update = {"none": torch.zeros(0, 2, dtype=dtype), "one": torch.ones((), dtype=dtype)}
    sent, _ = laplace().apply(update, {}, generator(0))
    assert [(v.dtype, v.shape) for v in sent.values()] == [(dtype, (0, 2)), (dtype, ())]
