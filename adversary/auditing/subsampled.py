"""Subsampled f-DP: the error rates of a test, held against the trade-off curve of DP-SGD's steps.

Privacy that is amplified by Poisson sampling is not Gaussian, and one (ε, δ) is far from its curve:
a test with many errors refutes a curve long before it refutes a point of it. Error rates (α, β) are
possible under the curve only if 1 − β ≤ e^ε·α + δ(ε) and 1 − α ≤ e^ε·β + δ(ε) for every ε. The
least noise whose curve they do not fit says what ε they show.

Source: M. Nasr et al., "Tight auditing of differentially private machine learning", USENIX Security
2023, section 4 (the curve of the subsampled Gaussian mechanism, by its privacy loss distribution).

*Differs from the paper*: the test is at the middle of the scores, fixed beforehand.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from adversary.auditing.claim import Claim
from adversary.auditing.finding import SAMPLED, Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.trials import ZERO, Trials
from defenses.accounting import Sampled

FINE = 32  # noise is looked for in steps of 2^(1/32)
LESS, MORE = 4, 2  # octaves: up to 2⁴ times less, and 2² times more, than is claimed
POINTS, REACH = 65, 4.0  # of a curve: values of ε from 0 on, evenly


def subsampled(trials: Trials, claim: Claim, confidence: float) -> Finding:
    """Return what trials show of the ε of Poisson-subsampled Gaussian steps.

    Args:
        trials: With and without the canary.
        claim: Of subsampled steps.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: As `clopper_pearson`, or no subsampled steps are claimed.
    """
    if claim.sampled is None:
        raise ValueError("claim: must be of subsampled steps to have their curve, got another")
    trials.check(delta=claim.delta, confidence=confidence)
    level = 1 - confidence
    rates, without_error = trials.rates_at(ZERO.value, level), trials.bounded((0, 0), level)
    return Finding(
        method="subsampled",
        guarantee=Guarantee.BOUND,
        epsilon=epsilon_shown(claim.sampled, *rates, claim.delta),
        delta=claim.delta,
        confidence=confidence,
        relation=claim.relation,
        trials=sum(trials.counts),
        most=epsilon_shown(claim.sampled, *without_error, claim.delta),
        assumes=SAMPLED,
    )


def epsilon_shown(
    claimed: Sampled, false_positive: float, false_negative: float, delta: float
) -> float:
    """Return ε of the same steps with the least noise that has no such test; 0 without any.

    Noise is looked for from 2⁻⁴ to 2² times the claimed one.
    """

    def steps(place: int) -> Sampled:
        return replace(claimed, noise=claimed.noise * 2 ** (place / FINE))

    def is_refuted(place: int) -> bool:
        return not _possible(steps(place), false_positive, false_negative)

    low, high = -FINE * LESS, FINE * MORE
    if not is_refuted(high):
        return 0.0
    while low < high:  # `high` is refuted, and noise below `low` is not
        middle = (low + high) // 2
        low, high = (low, middle) if is_refuted(middle) else (middle + 1, high)
    return steps(high).epsilon(delta)


def _possible(steps: Sampled, false_positive: float, false_negative: float) -> bool:
    """Return whether a test of these steps can have such error rates."""
    grid = np.linspace(0.0, REACH, POINTS)
    allowed = _deltas(steps, tuple(grid))
    rates = ((false_positive, false_negative), (false_negative, false_positive))
    shown = [1 - other - np.exp(grid) * rate for rate, other in rates]
    return bool((np.maximum(*shown) <= allowed).all())


@cache
def _deltas(steps: Sampled, epsilons: Sequence[float]) -> NDArray[np.float64]:
    return steps.deltas(epsilons)


METHOD = Method(
    name="subsampled",
    title="subsampled f-DP (assumes Poisson sampling and Gaussian noise)",
    head="subsampled",
    guarantee=Guarantee.BOUND,
    of_sampled=subsampled,
)
