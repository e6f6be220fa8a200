"""f-DP in one run: sound over seeds, and more than one (ε, δ) shows."""

import numpy as np
import pytest

from adversary.auditing.claim import Claim
from adversary.auditing.f_dp import f_dp, f_dp_mu
from adversary.auditing.one_run import MANY, by_sign, num_right, one_run_epsilon
from defenses.promise import Relation, gaussian_epsilon

CLAIM = Claim(relation=Relation.ADD_OR_REMOVE_EXAMPLE, delta=1e-5, mu=1.0)


def coined(seed, m, mu):
    """Return the scores and coins of m canaries of a Gaussian mechanism."""
    stream = np.random.default_rng(seed)
    coins = stream.random(m) < 0.5
    return stream.normal((coins - 0.5) * mu), coins


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon"),
    [
        (500, 100, 80, 1.556430),
        (2000, 400, 300, 1.390782),
        (2000, 200, 180, 2.657789),
        (100, 100, 70, 1.060703),
        (50, 20, 20, 3.721145),
    ],
)
def test_figures_of_jax_privacy(m, r, v, epsilon):
    mu = f_dp_mu(m, r, v, confidence=0.95)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=2e-6)


def test_it_shows_more_than_one_epsilon_and_delta():
    mu = f_dp_mu(500, 100, 80, confidence=0.95)
    one = one_run_epsilon(500, 100, 80, delta=1e-5, confidence=0.95)
    assert gaussian_epsilon(mu, 1e-5) > one > 0


def test_bounds_hold_over_seeds():
    bounds = [f_dp(*coined(seed, 400, 1.0), CLAIM, 0.95).mu for seed in range(25)]
    assert sum(mu > 1.0 for mu in bounds) <= 5  # of a level of 5 %, more have a chance of 0.4 %
    assert np.mean(bounds) > 0.3


def test_the_number_of_guesses_is_chosen_on_other_canaries():
    for method in (f_dp, by_sign):
        assert method(*coined(0, MANY, 2.0), CLAIM, 0.95).trials == 0.75 * MANY
        assert method(*coined(0, MANY - 1, 2.0), CLAIM, 0.95).trials == MANY - 1
    scores, coins = coined(0, 4000, 1.0)
    assert by_sign(scores, coins, CLAIM, 0.95).epsilon > 1.5
    surest = num_right(scores, coins, 2000)  # every second, as of few canaries
    assert one_run_epsilon(4000, 2000, surest, delta=1e-5, confidence=0.95) < 1.5


@pytest.mark.slow
def test_a_number_that_is_chosen_costs_no_validity():
    bounds = [by_sign(*coined(seed, MANY, 1.0), CLAIM, 0.95).epsilon for seed in range(60)]
    assert sum(bound > gaussian_epsilon(1.0, 1e-5) for bound in bounds) <= 8
    wrong = [coined(seed, MANY, 0.0) for seed in range(60)]
    assert sum(by_sign(*pair, CLAIM, 0.95).epsilon > 0 for pair in wrong) <= 8  # chance < 0.3 %


def test_one_epsilon_and_delta_is_no_curve():
    claim = Claim(relation=CLAIM.relation, delta=1e-5, epsilon=2.0)
    with pytest.raises(ValueError, match="claim: must be of a Gaussian mechanism"):
        f_dp(*coined(0, 100, 1.0), claim, 0.95)


def test_guesses_no_better_than_a_coin_show_nothing_and_counts_must_fit():
    assert f_dp_mu(500, 100, 50, confidence=0.95) == 0.0
    assert f_dp_mu(500, 0, 0, confidence=0.95) == 0.0
    with pytest.raises(ValueError, match="right: must be at most guesses"):
        f_dp_mu(10, 5, 6, confidence=0.95)
    with pytest.raises(ValueError, match="canaries: must be more to certify anything at 95 %"):
        f_dp(np.ones(2), np.ones(2, dtype=bool), CLAIM, 0.95)
