"""A threshold that is chosen on half of the trials, for a bound on the other half.

A test is a threshold on scores. One that is chosen on the scores it is tried on is no test but the
best of many: 8 % of audits of a Laplace mechanism are wrong then, at a level of 5 %
(`papers/inference.md`, section 4).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from adversary.auditing.finding import Finding, check_probability
from adversary.auditing.rates import epsilons_of_rates
from adversary.auditing.trials import Threshold, Trials, check_finite
from defenses.promise import Relation

Array = NDArray[np.float64]
Gain = Callable[[Array, Array, float], Array]
"""(false positive rates, false negative rates, δ) → what a test with these rates shows."""


def best_threshold(
    trials: Trials, *, delta: float, confidence: float, gain: Gain = epsilons_of_rates
) -> float:
    """Return the threshold with the largest bound on these trials: to be used on others only."""
    thresholds = trials.thresholds()
    gains = gain(*trials.every_rate(thresholds, 1 - confidence), delta)
    return float(thresholds[int(np.nan_to_num(gains, nan=-np.inf).argmax())])


def split(
    trials: Trials,
    *,
    test: Callable[..., Finding],
    gain: Gain,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> Finding:
    """Choose a test's threshold on every second trial, and certify on the others.

    Args:
        trials: All of them.
        test: (trials, threshold, relation, delta, confidence) → its bound.
        gain: What the threshold is chosen for.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: δ or confidence is no probability, a score is NaN, or there are too few trials.
    """
    check_probability("delta", delta)
    check_probability("confidence", confidence)
    check_finite(trials.without, trials.having)
    first, second = trials.halves()
    value = best_threshold(first, delta=delta, confidence=confidence, gain=gain)
    # Chosen on other trials, though their scores may be the same.
    return test(second, Threshold(value), relation=relation, delta=delta, confidence=confidence)
