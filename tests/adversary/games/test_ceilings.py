import math

import numpy as np
import pytest
from scipy.stats import norm

from adversary.games import GAMES
from adversary.games.ceilings import (
    attribute_counts,
    count_auroc,
    count_information,
    error_floor,
    gaussian_advantage,
    gaussian_auroc,
    gaussian_information,
    mixed_gaussian_auroc,
    private_advantage,
    private_auroc,
    private_information,
    share_counts,
)
from fedsim.core.secrets import Rules

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ATTRIBUTE = (1.000, 0.890, 0.789, 0.709, 0.649, 0.606, 0.575, 0.553, 0.538)
SHARES = (0.700, 0.784, 0.874, 0.950, 0.9905, 0.9996, 1.0, 1.0, 1.0)


def entropy(p):
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


@pytest.mark.parametrize(("batch", "figure"), list(zip(SIZES, ATTRIBUTE, strict=True)))
def test_the_table_of_attributes(batch, figure):
    assert count_auroc(*attribute_counts(batch, 0.675)) == pytest.approx(figure, abs=6e-4)
    assert GAMES["attribute"].ceiling(Rules(batch), 0.675) == pytest.approx(figure, abs=6e-4)


@pytest.mark.parametrize(("batch", "figure"), list(zip(SIZES, SHARES, strict=True)))
def test_the_table_of_shares(batch, figure):
    assert count_auroc(*share_counts(batch, (0.3, 0.7))) == pytest.approx(figure, abs=6e-4)
    assert GAMES["distribution"].ceiling(Rules(batch), 0.1) == pytest.approx(figure, abs=6e-4)


def test_counts_by_hand():
    without, having = attribute_counts(3, 0.5)
    assert without == pytest.approx([0.25, 0.5, 0.25, 0])
    assert having == pytest.approx([0, 0.25, 0.5, 0.25])
    # P(X₁ > X₀) + P(X₁ = X₀)/2 = (.25 + .5·.75 + .25·.25) + (.25·.5 + .5·.25)/2
    assert count_auroc(without, having) == pytest.approx(0.6875 + 0.125)


def test_the_largest_count_need_not_be_the_likeliest():
    # The likelihood ratio orders X as 1, 2, 0; the count itself would tell nothing.
    without, having = np.array([0.5, 0.0, 0.5]), np.array([0.0, 1.0, 0.0])
    assert count_auroc(without, having) == 1.0


def test_of_several_shares_each_is_held_against_the_rest():
    rules = Rules(2, shares=(0.0, 0.5, 1.0))
    low, middle, high = share_counts(2, rules.shares)
    each = [
        count_auroc((middle + high) / 2, low), count_auroc((low + high) / 2, middle),
        count_auroc((low + middle) / 2, high),
    ]  # fmt: skip
    assert each == pytest.approx([0.9375, 0.75, 0.9375])
    assert GAMES["distribution"].ceiling(rules, 0.5) == pytest.approx(sum(each) / 3)


def test_information_of_counts():
    assert count_information(attribute_counts(1, 0.675)) == pytest.approx(1.0)
    for p in (0.1, 0.3):
        assert count_information(share_counts(1, (p, 1 - p))) == pytest.approx(1 - entropy(p))
    assert count_information(share_counts(5, (0.4, 0.4))) == pytest.approx(0, abs=1e-12)
    assert count_information(share_counts(3, (0.0, 1.0))) == pytest.approx(1.0)
    bits = [count_information(attribute_counts(size, 0.675)) for size in SIZES]
    assert bits == sorted(bits, reverse=True)
    bits = [count_information(share_counts(size, (0.1, 0.4, 0.8))) for size in SIZES]
    assert bits == sorted(bits)
    assert bits[-1] == pytest.approx(math.log2(3), abs=1e-3)


def test_games_without_a_count_have_the_secret_itself_as_their_bound():
    for name, classes in (("property", 2), ("attribute-known", 2), ("user", 5), ("source", 5)):
        game, rules = GAMES[name], Rules(4, users=5)
        assert game.classes(rules) == classes
        assert game.ceiling(rules, 0.5) == 1.0
        assert game.bits(rules, 0.5) == pytest.approx(math.log2(classes))
    assert GAMES["attribute"].bits(Rules(1), 0.5) == pytest.approx(1.0)


def test_fano_for_two_is_the_inverse_of_the_binary_entropy():
    assert error_floor(0.0, 2) == pytest.approx(0.5)
    assert error_floor(1.0, 2) == 0.0
    for p in (0.01, 0.11, 0.25, 0.499):  # a binary symmetric channel meets it
        assert error_floor(1 - entropy(p), 2) == pytest.approx(p, abs=1e-9)


def test_fano_for_many():
    assert error_floor(0.0, 8) == pytest.approx(2 / 3)
    assert error_floor(1.0, 8) == pytest.approx(1 / 3)
    assert error_floor(2.5, 8) == error_floor(3.0, 8) == 0.0


def test_fano_holds_for_whoever_reads_the_count():
    for size in (1, 2, 4, 16):
        zero, one = share_counts(size, (0.3, 0.7))
        error = np.minimum(zero, one).sum() / 2
        floor = error_floor(count_information((zero, one)), 2)
        assert error / 2 <= floor <= error


def test_a_gaussian_mechanism():
    assert gaussian_auroc(0.0) == 0.5
    assert gaussian_auroc(0.915) == pytest.approx(0.741, abs=5e-4)  # papers/inference.md, 3
    assert gaussian_advantage(2.0) == pytest.approx(2 * norm.cdf(1) - 1)
    assert gaussian_auroc(1.0) == pytest.approx(0.7602, abs=1e-4)
    assert gaussian_information(0.0) == 0.0
    assert gaussian_information(30.0) == pytest.approx(1.0)
    assert gaussian_information(2.0) == pytest.approx(0.4859, abs=1e-3)  # BPSK at 0 dB


def test_a_mixture_of_distances_lies_between_its_parts():
    one = np.array([1.0])
    assert mixed_gaussian_auroc(1.3 * one, one) == pytest.approx(gaussian_auroc(1.3))
    chances = np.array([0.25, 0.75])
    # Half of all pairs that see no difference tie; by hand, over the four pairs.
    expected = 0.25**2 / 2 + 2 * 0.25 * 0.75 * norm.cdf(1.0) + 0.75**2 * norm.cdf(2 / 2**0.5)
    assert mixed_gaussian_auroc(np.array([0.0, 2.0]), chances) == pytest.approx(expected)


def test_a_private_mechanism():
    assert private_advantage(0.0, 0.0) == 0.0
    assert private_advantage(0.0, 0.1) == pytest.approx(0.1)
    assert private_advantage(1.0, 1e-5) == pytest.approx((math.e - 1 + 2e-5) / (math.e + 1))
    assert private_advantage(5000.0, 1e-5) == 1.0
    assert private_advantage(3.0, 1.0) == 1.0
    # Randomised response with ε = 1 meets it, and its AUROC is below that of its total variation.
    p = math.e / (1 + math.e)
    assert 2 * p - 1 == pytest.approx(private_advantage(1.0, 0.0))
    response = count_auroc(np.array([p, 1 - p]), np.array([1 - p, p]))
    assert response == pytest.approx(private_auroc(1.0, 0.0))
    told = count_information((np.array([p, 1 - p]), np.array([1 - p, p])))
    assert told == pytest.approx(private_information(1.0, 0.0))
    # With chance δ the secret itself is shown.
    leaky = np.array([0.1, 0.9 * p, 0.9 * (1 - p), 0.0])
    assert count_auroc(leaky, leaky[::-1]) == pytest.approx(private_auroc(1.0, 0.1))
    assert count_information((leaky, leaky[::-1])) == pytest.approx(private_information(1.0, 0.1))
    assert private_auroc(0.0, 0.0) == 0.5
    assert private_auroc(5000.0, 1e-5) == private_information(5000.0, 1e-5) == 1.0
