import math

import pytest
import torch
from scipy.stats import chi2

from defenses import gaussian
from fedsim.core.rng import generator


@pytest.mark.parametrize("std", [0.01, 3.0])
def test_the_noise_has_the_promised_standard_deviation_and_no_mean(std):
    update = {"a": torch.ones(200, 100), "b": torch.ones(1000, dtype=torch.float64)}
    noisy, _ = gaussian(std=std).apply(update, {}, generator(0, "noise"))
    noise = torch.cat([(noisy[name] - 1).double().flatten() for name in update]) / std
    low, high = chi2.ppf([1e-4, 1 - 1e-4], len(noise))
    assert low < float(noise.square().sum()) < high
    assert abs(float(noise.mean())) < 4 / math.sqrt(len(noise))


def test_no_noise_is_no_change_and_every_entry_has_its_own():
    update = {"a": torch.zeros(500)}
    same, _ = gaussian(std=0.0).apply(update, {}, generator(0))
    assert torch.equal(same["a"], update["a"])
    noisy, _ = gaussian(std=1.0).apply(update, {}, generator(0))
    assert len(noisy["a"].unique()) > 490


@pytest.mark.parametrize("std", [-0.1, math.inf, math.nan])
def test_the_standard_deviation_must_be_a_number(std):
    with pytest.raises(ValueError, match="std: must be finite and ≥ 0"):
        gaussian(std=std)
