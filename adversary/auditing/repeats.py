"""Repeats: parts of an upload that are the same, to the last digit, in many runs.

Noise with a density gives the same value twice with probability 0. If a share p > δ of the runs
with the canary repeats a value that no run without it has, then ε ≥ ln((p − δ)/q), where q bounds
the chance of that value under noise with a density. So noise that fails in 5 % of the runs, or is
forgotten on one tensor, shows an ε beyond any that counting errors could show. Ours.
"""

import math

import numpy as np
from numpy.typing import NDArray

from adversary.auditing.features import Features
from adversary.auditing.finding import DENSITY, Finding, Guarantee, check_probability
from adversary.auditing.method import Method
from adversary.auditing.rates import upper_rate
from defenses.promise import Relation

NARROW = 1e-9  # of the spread of a mark: closer ones are the same
CHANCE = 1e-7  # q: `NARROW` of a normal density, and the steps of float32, of two entries or more

Array = NDArray[np.float64]


def repeats(
    features: Features, *, relation: Relation, delta: float = 1e-5, confidence: float = 0.95
) -> Finding:
    """Return what repeated values show of the ε of a mechanism whose noise has a density.

    The value and the part of the upload are chosen on every second run; the others are counted.

    Args:
        features: Of all runs.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: δ or confidence is no probability.
    """
    check_probability("delta", delta)
    check_probability("confidence", confidence)
    first, second = features.half(0), features.half(1)
    best = max(
        (_repeated(first, place) for place in range(len(features.mark_names))),
        default=(0, 0, 0.0, 0.0),
    )
    count, place, value, width = best
    rate, most = 0.0, _lower(len(second.having), len(second.having), confidence)
    if count > 1:
        again, other = (
            int((np.abs(part[:, place] - value) <= width).sum())
            for part in (second.marks_having, second.marks_without)
        )
        rate = 0.0 if other else _lower(again, len(second.having), confidence)
    return Finding(
        method="repeats",
        guarantee=Guarantee.BOUND,
        epsilon=_epsilon(rate, delta),
        delta=delta,
        confidence=confidence,
        relation=relation,
        trials=len(second.without) + len(second.having),
        most=_epsilon(most, delta),
        assumes=DENSITY,
        statistic=f"the same {features.mark_names[place]}" if rate else None,
    )


def _repeated(first: Features, place: int) -> tuple[int, int, float, float]:
    """Return how often a part's commonest value with the canary is there, and which it is."""
    marks, other = np.sort(first.marks_having[:, place]), first.marks_without[:, place]
    width = NARROW * (_spread(marks) or float(np.abs(marks).max(initial=0.0)))
    counts = np.searchsorted(marks, marks + width, "right") - np.arange(len(marks))
    at = int(counts.argmax())
    value = float(marks[at])
    if (np.abs(other - value) <= 2 * width).any():
        return 0, place, value, width
    return int(counts[at]), place, value, width


def _spread(values: Array) -> float:
    """Return the interquartile range, which a few repeated values do not change."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low)


def _lower(right: int, trials: int, confidence: float) -> float:
    """Return the rate below which so many have a chance of at most 1 − confidence."""
    return 1 - upper_rate(trials - right, trials, 1 - confidence)


def _epsilon(rate: float, delta: float) -> float:
    return max(0.0, math.log(rate - delta) - math.log(CHANCE)) if rate > delta else 0.0


METHOD = Method(
    name="repeats",
    title="repeated values (assumes that noise has a density)",
    head="repeats",
    guarantee=Guarantee.BOUND,
    of_features=repeats,
)
