import math

import pytest
import torch

from adversary.text.exposure import exposure


@pytest.mark.worked
def test_the_likeliest_of_eight_has_three_bits_and_the_unlikeliest_none():
    scores = torch.arange(8.0)
    assert exposure(scores, 7) == 3
    assert exposure(scores, 0) == 0
    assert exposure(scores, 6) == 2


@pytest.mark.worked
def test_ties_count_half():
    assert exposure(torch.tensor([1.0, 1.0, 1.0, 0.0]), 0) == pytest.approx(2 - math.log2(2))
    assert exposure(torch.zeros(512), 3) == pytest.approx(9 - math.log2(1 + 511 / 2))


@pytest.mark.theorem
def test_a_canary_that_was_never_trained_on_has_log2_e_bits_on_average():
    """Carlini et al., section 5.1: −log₂ of a uniform rank's share."""
    scores = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    mean = sum(exposure(scores, place) for place in range(4096)) / 4096
    assert mean == pytest.approx(math.log2(math.e), abs=0.01)
