"""One run: the reference's figures, the formula in loops, and sound over seeds."""

import numpy as np
import pytest
from scipy.stats import binom

from adversary.auditing.one_run import fewest_canaries, one_run, one_run_epsilon, p_value
from defenses.promise import Relation

RELATION = Relation.ADD_OR_REMOVE_EXAMPLE


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon"),
    [
        (2000, 400, 300, 0.90278),
        (2000, 200, 180, 1.79368),
        (500, 100, 80, 0.95686),
        (10000, 1000, 900, 2.01519),
    ],
)
def test_figures_of_jax_privacy(m, r, v, epsilon):
    found = one_run_epsilon(m, r, v, delta=1e-5, confidence=0.95)
    assert found == pytest.approx(epsilon, abs=6e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0, 50.0, 700.0])
@pytest.mark.parametrize(("m", "r", "v"), [(30, 12, 9), (30, 12, 12), (30, 12, 0), (8, 8, 5)])
def test_the_p_value_in_loops(m, r, v, epsilon):
    q = 1 / (1 + np.exp(-epsilon))
    tail = sum(binom.pmf(k, r, q) for k in range(v, r + 1))
    worst = max(
        (sum(binom.pmf(k, r, q) for k in range(v - i, v)) / i for i in range(1, v + 1)), default=0.0
    )
    expected = min(1.0, tail + 2 * m * 1e-3 * worst)
    assert p_value(m, r, v, epsilon, 1e-3) == pytest.approx(expected, abs=1e-12)


def test_the_bound_is_where_the_p_value_is_the_level():
    found = one_run_epsilon(500, 100, 80, delta=1e-5, confidence=0.9)
    assert p_value(500, 100, 80, found, 1e-5) == pytest.approx(0.1)


def test_guesses_no_better_than_a_coin_show_nothing():
    assert one_run_epsilon(500, 100, 50, delta=1e-5, confidence=0.95) == 0.0
    assert one_run_epsilon(500, 0, 0, delta=1e-5, confidence=0.95) == 0.0


@pytest.mark.slow
def test_bounds_hold_over_seeds():
    wrong, found = 0, []
    for seed in range(100):
        stream = np.random.default_rng(seed)
        coins = stream.random(400) < 0.5
        scores = stream.normal(coins / 1.0812)
        found.append(one_run(scores, coins, relation=RELATION).epsilon)
        wrong += found[-1] > 4
    assert wrong <= 11
    assert np.mean(found) > 0.5  # and are not empty


def test_coins_decide_nothing_but_what_is_right():
    stream = np.random.default_rng(0)
    scores, coins = stream.normal(size=300), stream.random(300) < 0.5
    right = one_run(scores, scores > 0, relation=RELATION)
    assert right.epsilon == right.most
    assert right.epsilon > one_run(scores, coins, relation=RELATION).epsilon
    assert one_run(scores, scores < 0, relation=RELATION).epsilon == 0.0


def test_too_few_canaries_are_told_how_many_would_do():
    least = fewest_canaries(0.1, delta=1e-5, confidence=0.95)
    coins = np.arange(least) % 2 == 0
    assert one_run(coins.astype(float), coins, relation=RELATION).epsilon > 0
    with pytest.raises(ValueError, match=f"canaries: must be at least {least} to certify"):
        one_run(coins[1:].astype(float), coins[1:], relation=RELATION)
    with pytest.raises(ValueError, match="guessed: must be above 0 and at most 0.5, got 0.6"):
        one_run(coins.astype(float), coins, relation=RELATION, guessed=0.6)
    with pytest.raises(ValueError, match="right: must be at most guesses"):
        one_run_epsilon(10, 5, 6, delta=1e-5, confidence=0.95)
