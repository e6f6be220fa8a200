"""A threshold that is chosen on half of the trials, many times over, and the median of the bounds.

Source: N. Meinshausen, L. Meier, P. Bühlmann, "p-values for high-dimensional regression", JASA
2009, theorem 3.1: twice the median of p-values of many random splits is a p-value, so that the
median of bounds at half the level is a bound at the level. One split is a lottery, a median is not.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adversary.auditing.clopper_pearson import clopper_pearson
from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.hull import corners
from adversary.auditing.method import Method
from adversary.auditing.rates import epsilons_of_rates
from adversary.auditing.trials import Threshold, Trials
from defenses.promise import Relation
from fedsim.core.rng import derive

SPLITS = 100
Order = tuple[NDArray[np.int64], NDArray[np.int64]]
"""An order of the runs without the canary, and of those with it; the first half chooses."""


def multi_split(
    trials: Trials,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
    orders: Iterable[Order] | None = None,
) -> Finding:
    """Return the median, over random splits, of bounds at half the level.

    Args:
        trials: With and without the canary.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.
        orders: The splits; `SPLITS` drawn ones if omitted.

    Raises:
        ValueError: As `clopper_pearson`, of half of the trials.
    """
    surer = 1 - (1 - confidence) / 2
    bounds = []
    for order in orders or _drawn(trials.counts):
        first, second = _parts(trials, order)
        threshold = _chosen(first, delta, surer)
        options = {"relation": relation, "delta": delta, "confidence": surer}
        bounds.append(clopper_pearson(second, threshold, **options))
    epsilon = float(np.median([bound.epsilon for bound in bounds]))
    name = "clopper-pearson-multi-split"
    return replace(bounds[0], method=name, epsilon=epsilon, confidence=confidence)


def _parts(trials: Trials, order: Order) -> tuple[Trials, Trials]:
    """Return the trials that choose, and those that certify."""
    parts = (trials.without[order[0]], trials.having[order[1]])
    halves = [len(part) // 2 for part in parts]
    chooses, certifies = (
        Trials(*(part[rows] for part, rows in zip(parts, cuts, strict=True)))
        for cuts in ([slice(0, h) for h in halves], [slice(h, None) for h in halves])
    )
    return chooses, certifies


def _chosen(first: Trials, delta: float, confidence: float) -> Threshold:
    """Return the corner of the hull with the largest bound: just below the next score."""
    at = corners(first)
    gains = epsilons_of_rates(*first.every_rate(at, 1 - confidence), delta)
    value = at[int(gains.argmax())]
    scores = np.unique(np.concatenate([first.without, first.having]))
    above = scores[scores > value]
    return Threshold(float(np.nextafter(above[0], -np.inf)) if len(above) else float("inf"))


def _drawn(counts: tuple[int, int]) -> Iterable[Order]:
    for place in range(SPLITS):
        stream = np.random.default_rng(derive(0, "audit", "split", place))
        yield stream.permutation(counts[0]), stream.permutation(counts[1])


METHOD = Method(
    name="clopper-pearson-multi-split",
    title="Clopper–Pearson, median of many splits",
    head="CP, splits",
    guarantee=Guarantee.BOUND,
    tests={"multi-split": multi_split},
)
