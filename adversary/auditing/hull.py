"""Clopper–Pearson at the corners of the ROC curve's hull, each at its share of the level.

As jax_privacy 2.0 has it: fewer thresholds share the level than in `bonferroni`, so that it shows
more. Which thresholds are corners depends on the scores, and no theorem covers that: it is an
estimate here, and refutes nothing.
"""

import numpy as np
from numpy.typing import NDArray

from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.rates import epsilons_of_rates
from adversary.auditing.trials import Trials
from defenses.promise import Relation


def hull(
    trials: Trials, *, relation: Relation, delta: float = 1e-5, confidence: float = 0.95
) -> Finding:
    """Return the largest bound over the corners of the hull.

    Args:
        trials: With and without the canary.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: As it would be if the corners were fixed beforehand.

    Raises:
        ValueError: As `clopper_pearson`.
    """
    trials.check(delta=delta, confidence=confidence)
    at = corners(trials)
    rates = trials.every_rate(at, (1 - confidence) / len(at))
    return Finding(
        method="clopper-pearson-hull",
        guarantee=Guarantee.ESTIMATE,
        epsilon=float(epsilons_of_rates(*rates, delta).max()),
        delta=delta,
        confidence=confidence,
        relation=relation,
        trials=sum(trials.counts),
        most=float("inf"),
        assumes="that corners of the hull are as thresholds fixed beforehand",
    )


def corners(trials: Trials) -> NDArray[np.float64]:
    """Return the thresholds at the corners of the ROC curve's convex hull, ends included.

    A threshold is one if no two others together are as good: the upper hull of the points (runs
    with the canary, runs without it) at or below it, by Andrew's monotone chain.
    """
    thresholds = trials.thresholds()
    missed, rejected = (
        np.searchsorted(np.sort(part), thresholds, side="right")
        for part in (trials.having, trials.without)
    )
    kept: list[int] = []
    for place in range(len(thresholds)):
        while len(kept) > 1 and not _turns_right(missed, rejected, (kept[-2], kept[-1], place)):
            kept.pop()
        kept.append(place)
    return thresholds[kept]


def _turns_right(x: NDArray[np.int64], y: NDArray[np.int64], places: tuple[int, int, int]) -> bool:
    """Return whether the way over three points bends to the right."""
    a, b, c = places
    return bool((y[b] - y[a]) * (x[c] - x[b]) > (y[c] - y[b]) * (x[b] - x[a]))


METHOD = Method(
    name="clopper-pearson-hull",
    title="Clopper–Pearson, corners of the hull",
    head="CP, hull",
    guarantee=Guarantee.ESTIMATE,
    tests={"hull": hull},
)
