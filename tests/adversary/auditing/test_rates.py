"""Error rates and what they imply: by hand, by the caps of the literature, and at the extremes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from adversary.auditing.rates import (
    check_trials,
    epsilon_of_rates,
    most_epsilon,
    mu_of_rates,
    trials_for,
    upper_rate,
)
from defenses.promise import gaussian_epsilon


@pytest.mark.parametrize(("errors", "trials"), [(0, 20), (3, 20), (19, 20)])
def test_so_few_errors_have_exactly_the_level_at_the_upper_rate(errors, trials):
    rate = upper_rate(errors, trials, 0.025)
    assert binom.cdf(errors, trials, rate) == pytest.approx(0.025)


def test_the_upper_rate_of_nothing_but_errors_is_one():
    assert upper_rate(20, 20, 0.025) == 1.0


def test_epsilon_by_hand():
    assert epsilon_of_rates(0.1, 0.3, 0.0) == pytest.approx(math.log(0.7 / 0.1))
    assert epsilon_of_rates(0.3, 0.1, 0.0) == pytest.approx(math.log(0.7 / 0.1))
    assert epsilon_of_rates(0.5, 0.5, 0.0) == 0.0
    assert epsilon_of_rates(0.9, 0.95, 1e-5) == 0.0  # worse than a coin: nothing is shown
    assert mu_of_rates(float(norm.sf(1)), float(norm.cdf(-1))) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("trials", "most"),
    [(50, 2.57), (100, 3.28), (250, 4.21), (500, 4.91), (1000, 5.60), (5000, 7.21)],
)
def test_what_trials_without_errors_show(trials, most):
    found = most_epsilon(trials, delta=1e-5, confidence=0.95)
    assert found == pytest.approx(most, abs=0.006)
    q = 1 - 0.025 ** (1 / trials)
    assert found == pytest.approx(math.log((1 - 1e-5 - q) / q))


@given(st.floats(0.0, 12.0), st.sampled_from([1e-9, 1e-5, 1e-3]), st.sampled_from([0.8, 0.95]))
def test_so_many_trials_and_no_fewer_can_show_an_epsilon(epsilon, delta, confidence):
    least = trials_for(epsilon, delta=delta, confidence=confidence)
    assert most_epsilon(least, delta=delta, confidence=confidence) > epsilon
    if least > 1:
        assert most_epsilon(least - 1, delta=delta, confidence=confidence) <= epsilon + 1e-9


def test_too_few_trials_are_told_how_many_would_do():
    with pytest.raises(ValueError, match="trials: must be at least 6 of each hypothesis .* got 5"):
        check_trials(5, delta=1e-5, confidence=0.95)
    check_trials(6, delta=1e-5, confidence=0.95)


def test_no_nan_up_to_an_epsilon_of_700():
    for mu in np.geomspace(1e-3, 37.0, 200):
        epsilon = gaussian_epsilon(float(mu), 1e-5)
        assert math.isfinite(epsilon)
    assert gaussian_epsilon(35.0, 1e-5) > 700
    assert math.isfinite(epsilon_of_rates(1e-308, 1e-308, 1e-5))
    assert math.isfinite(mu_of_rates(1e-308, 1e-308))
    assert math.isfinite(gaussian_epsilon(mu_of_rates(1e-308, 1e-308), 1e-5))
