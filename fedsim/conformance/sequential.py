"""Tests of chance that stop as soon as they are decided."""

import math
from collections.abc import Iterable
from itertools import count

EFFECT = 0.5  # the advantage that must be found, in standard deviations of one trial
FALSE_ALARM, MISSED = 3e-5, 0.05  # of Wald's bounds; the first is kept up to a σ that is estimated
LEAST, MOST = 24, 200  # trials
LOOKS = (20, 30, 40, 50)


def has_advantage(gains: Iterable[float]) -> bool:
    """Return whether gains have a mean above 0, by Wald's sequential probability ratio test.

    H0: mean 0, H1: mean EFFECT · σ, with σ estimated from the trials so far. In 20,000
    simulations of normal gains, and of gains −1, 0 and 1, it finds an advantage where there is none
    in 0.04 % of cases at most, misses one of EFFECT in 5 %, and takes 33 trials where there is
    none. (3.5 standard errors of 120 trials: 0.02 %, 2 %.)
    """
    low, high = math.log(MISSED / (1 - FALSE_ALARM)), math.log((1 - MISSED) / FALSE_ALARM)
    ratio = 0.0
    for number, mean, std in _moments(gains):
        if number < LEAST:
            continue
        if std == 0:
            return mean > 0
        ratio = number * EFFECT * (mean / std - EFFECT / 2)
        if not low < ratio < high or number == MOST:
            break
    return ratio > 0


def is_better(gains: Iterable[float]) -> bool:
    """Return whether gains have a mean that lies five standard errors above 0, at any of LOOKS.

    Of gains without a mean that has a chance below 1e-4: Student's t of four looks, added up.
    """
    for number, mean, std in _moments(gains):
        if number in LOOKS and mean > 5 * std / math.sqrt(number):
            return True
        if number == LOOKS[-1]:
            break
    return False


def _moments(values: Iterable[float]) -> Iterable[tuple[int, float, float]]:
    """Yield the count, the mean and the standard deviation of the values so far."""
    mean = squares = 0.0
    for number, value in zip(count(1), values, strict=False):
        step = value - mean
        mean += step / number
        squares += step * (value - mean)
        yield number, mean, math.sqrt(squares / max(1, number - 1))
