import math

import pytest
import torch

from adversary.inversion.spread import estimated
from fedsim.core.rng import generator
from fedsim.core.types import Estimate

X = torch.rand(3, 1, 4, 4, generator=generator(0, "x"))


def test_the_spread_is_the_standard_deviation_over_restarts_in_the_order_of_the_best():
    shifts = (0.0, 0.01, -0.03)
    guesses = torch.stack([X + shift for shift in shifts])
    guesses[1], guesses[2] = guesses[1][[2, 0, 1]], guesses[2].flip(0)
    answer = estimated(guesses, torch.tensor([0.1, 0.3, 0.2]))
    assert isinstance(answer, Estimate)
    assert torch.equal(answer.values, X)
    expected = torch.tensor(shifts).std()
    torch.testing.assert_close(answer.uncertainty, torch.full_like(X, float(expected)))


def test_a_restart_without_a_finite_loss_has_no_say():
    guesses = torch.stack([X, X + 0.5, X + 0.1])
    answer = estimated(guesses, torch.tensor([math.nan, 0.2, 0.3]))
    assert torch.equal(answer.values, guesses[1])
    torch.testing.assert_close(answer.uncertainty, torch.full_like(X, 0.4 / 2**0.5))


@pytest.mark.parametrize("losses", [[0.5], [math.inf, 0.5], [math.nan, 0.5]])
def test_a_single_restart_says_nothing_of_its_uncertainty(losses):
    guesses = torch.stack([X + place for place in range(len(losses))])
    answer = estimated(guesses, torch.tensor(losses))
    assert isinstance(answer, torch.Tensor)
    assert torch.equal(answer, guesses[-1])
