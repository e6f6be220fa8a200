"""Learned statistics: sound whatever is learned, and they find what is nowhere expected."""

import numpy as np
import pytest

from adversary.auditing.features import Features
from adversary.auditing.learned import learned, learned_mu_gdp
from adversary.auditing.rates import epsilons_of_rates, upper_rate
from adversary.auditing.repeats import CHANCE, repeats
from adversary.auditing.statistics import DELTA, LEVEL, best_test
from defenses.promise import Relation

RELATION = Relation.ADD_OR_REMOVE_EXAMPLE
NAMES = ("first", "second", "third")


def features(without, having, marks=((0.0,), (0.0,))):
    marks_without, marks_having = (np.resize(part, (len(without), 1)) for part in marks)
    return Features(NAMES, without, having, ("tensor",), marks_without, marks_having)


def drawn(seed, n=200, *, shift=0.0, spread=1.0):
    """Return three normal features, of which the second differs."""
    stream = np.random.default_rng(seed)
    without, having = stream.normal(size=(2, n, 3))
    having[:, 1] = spread * having[:, 1] + shift
    return features(without, having)


def test_the_feature_that_differs_is_learned_either_way_round():
    for shift in (12.0, -12.0):
        bound = learned(drawn(0, shift=shift), relation=RELATION)
        assert bound.statistic == "second"
        assert bound.epsilon > 2.5
        assert (bound.trials, bound.assumes) == (200, None)
        assert learned_mu_gdp(drawn(0, shift=shift), relation=RELATION).epsilon > 10


def test_a_spread_that_differs_is_learned():
    bound = learned_mu_gdp(drawn(0, spread=30.0, n=400), relation=RELATION)
    assert bound.epsilon > 2


def test_the_best_feature_and_threshold_in_loops():
    both = drawn(1, n=20, shift=1.5)
    place, sign, threshold = best_test(both.without, both.having, gaussian=False)

    def gain(place, sign, at):
        wrong = int((sign * both.without[:, place] > at).sum())
        missed = int((sign * both.having[:, place] <= at).sum())
        rates = (np.array(upper_rate(w, 20, LEVEL / 2)) for w in (wrong, missed))
        return float(epsilons_of_rates(*rates, DELTA))

    values = np.concatenate([both.without, both.having])
    every = [
        gain(place, sign, sign * value)
        for place in range(3)
        for sign in (1, -1)
        for value in values[:, place]
    ]
    assert max(every) > 0
    assert gain(place, sign, sign * threshold) == pytest.approx(max(every))


@pytest.mark.slow
def test_bounds_of_features_that_differ_in_nothing_hold():
    wrong = 0
    for seed in range(100):
        both = drawn(seed, n=60)
        wrong += learned(both, relation=RELATION).epsilon > 0
        wrong += learned_mu_gdp(both, relation=RELATION).epsilon > 0
    assert wrong <= 2 * 11  # a level of 5 %, each; more have a chance of 0.4 %


def test_a_value_that_repeats_in_a_few_runs_shows_more_than_counting_could():
    stream = np.random.default_rng(0)
    having = stream.normal(size=400)
    having[::10] = having[1::10] = 3.0  # a tenth of either half
    both = drawn(0, n=400)
    marks = stream.normal(size=400), having
    bound = repeats(features(both.without, both.having, marks), relation=RELATION)
    assert bound.statistic == "the same tensor"
    assert 0.05 / CHANCE < np.exp(bound.epsilon) < 0.2 / CHANCE
    marks[0][7] = 3.0  # without the canary, too: it shows nothing
    bound = repeats(features(both.without, both.having, marks), relation=RELATION)
    assert (bound.epsilon, bound.statistic) == (0.0, None)


def test_values_with_a_density_never_repeat():
    for seed in range(20):
        stream = np.random.default_rng(seed)
        both = drawn(0, n=400)
        marks = stream.normal(size=(2, 400))
        assert repeats(features(both.without, both.having, marks), relation=RELATION).epsilon == 0


def test_a_feature_that_is_no_number_is_refused():
    both = drawn(0)
    both.having[3, 1] = np.nan
    with pytest.raises(ValueError, match="scores: must be numbers, got NaN"):
        both.check()
