import math

import pytest
import torch

from adversary.grading.families import FAMILIES
from adversary.grading.uncertainty import grade, in_order, rank_correlation
from fedsim.core.rng import generator
from tests.adversary.grading.test_reconstructions import drawn

NAME = "uncertainty_correlation"


def guess_of(truth):
    """Return a guess whose errors have many sizes, and the sizes."""
    stream = generator(0, "guess")
    size = 0.2 * torch.rand(truth.inputs.shape, generator=stream)
    towards = torch.where(truth.inputs > 0.5, -1.0, 1.0)  # stays inside the range
    return truth.inputs + size * towards, size


def test_who_says_where_it_errs_has_a_correlation_of_one_in_any_order():
    truth, _ = drawn(0, 4)
    guess, size = guess_of(truth)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        assert grade(guess[order], size[order], truth) == {NAME: (pytest.approx(1.0), 0.0)}
    ranked = grade(guess, size**3, truth)[NAME][0]
    assert ranked == pytest.approx(1.0, abs=1e-6)
    assert grade(guess, size.amax() - size, truth)[NAME][0] == pytest.approx(-1.0, abs=1e-6)


def test_an_uncertainty_that_knows_nothing_is_at_chance():
    truth, _ = drawn(1, 20)
    guess, size = guess_of(truth)
    noise = torch.rand(size.shape, generator=generator(0, "noise"))
    assert abs(grade(guess, noise, truth)[NAME][0]) < 4 / size.numel() ** 0.5
    assert math.isnan(grade(guess, torch.ones_like(size), truth)[NAME][0])


def test_examples_without_an_answer_are_left_out():
    truth, _ = drawn(2, 4)
    guess, size = guess_of(truth)
    unsure, answered = in_order(guess[1:3], size[1:3], truth)
    assert answered.tolist() == [False, True, True, False]
    assert not unsure[0].any()
    assert not unsure[3].any()
    assert grade(guess[1:3], size[1:3], truth)[NAME][0] == pytest.approx(1.0)
    assert math.isnan(grade(guess[:0], size[:0], truth)[NAME][0])


def test_the_metric_is_no_headline():
    assert FAMILIES["reconstruction"].ranked[0] == "cell_accuracy"
    assert NAME in FAMILIES["reconstruction"].ranked[-2:]


def test_ranks_of_few_numbers():
    assert math.isnan(rank_correlation(torch.ones(1), torch.ones(1)))
    assert rank_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 3, 2])) == pytest.approx(
        0.5
    )
