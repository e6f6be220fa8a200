"""Clopper–Pearson: bounds of a test's error rates, and the ε that they show of any mechanism.

Source: M. Nasr, S. Song, A. Thakurta, N. Papernot, N. Carlini, "Adversary instantiation: lower
bounds for differentially private machine learning", IEEE S&P 2021.
"""

from dataclasses import replace
from functools import partial

from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates, all_assumed
from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.rates import epsilon_of_rates, epsilons_of_rates
from adversary.auditing.split import split
from adversary.auditing.trials import ZERO, Threshold, Trials
from defenses.promise import Relation


def clopper_pearson(
    trials: Trials,
    threshold: Threshold = ZERO,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> Finding:
    """Return what independent trials show of ε, whatever the mechanism.

    Error rates are bounded by one-sided Clopper–Pearson intervals, each at half the level.

    Args:
        trials: With and without the canary.
        threshold: Fixed beforehand, or chosen on other trials.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: δ or confidence is no probability, there are too few trials, or the threshold
            was chosen on these scores.
    """
    trials.check(delta=delta, confidence=confidence)
    threshold.check(trials)
    level = 1 - confidence
    without_error = trials.bounded((0, 0), level)
    return Finding(
        method="clopper-pearson",
        guarantee=Guarantee.BOUND,
        epsilon=epsilon_of_rates(*trials.rates_at(threshold.value, level), delta),
        delta=delta,
        confidence=confidence,
        relation=relation,
        trials=sum(trials.counts),
        most=epsilon_of_rates(*without_error, delta),
    )


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Finding:
    """Count the signs of single uploads, or of clients' sums."""
    trials, assumed = updates.counted(delta=claim.delta, confidence=confidence)
    finding = clopper_pearson(
        trials, relation=claim.relation, delta=claim.delta, confidence=confidence
    )
    return replace(finding, assumes=all_assumed(finding.assumes, assumed))


METHOD = Method(
    name="clopper-pearson",
    title="Clopper–Pearson, at 0",
    head="CP",
    guarantee=Guarantee.BOUND,
    how="signs of {}",
    tests={
        "fixed": clopper_pearson,
        "split": partial(split, test=clopper_pearson, gain=epsilons_of_rates),
    },
    of_updates=of_updates,
)
