"""Bayes: the lower end of a credible interval of the ε that a test shows. No bound.

Source: S. Zanella-Béguelin et al., "Bayesian estimation of differential privacy", ICML 2023.
"""

from dataclasses import replace

import numpy as np
import scipy

from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates, all_assumed
from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.rates import epsilons_of_rates
from adversary.auditing.trials import ZERO, Threshold, Trials
from defenses.promise import Relation

GRID = 1001  # quantiles of a posterior, of each rate


def credible(
    trials: Trials,
    threshold: Threshold = ZERO,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> Finding:
    """Return the lower end of a one-sided credible interval of the ε that a test shows.

    False positive and negative rates have Jeffreys' prior and are independent; the posterior of ε
    is that of `epsilon_of_rates`, summed over quantiles of both. Nothing is drawn at random.

    Args:
        trials: With and without the canary.
        threshold: Fixed beforehand, or chosen on other trials.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: The probability of the interval.

    Raises:
        ValueError: As `clopper_pearson`.
    """
    trials.check(delta=delta, confidence=confidence)
    threshold.check(trials)
    middles = (np.arange(GRID) + 0.5) / GRID
    positive, negative = (
        scipy.special.betaincinv(wrong + 0.5, count - wrong + 0.5, middles)
        for wrong, count in zip(trials.errors_at(threshold.value), trials.counts, strict=True)
    )
    epsilons = epsilons_of_rates(positive[:, None], negative[None, :], delta)
    return Finding(
        method="bayes",
        guarantee=Guarantee.CREDIBLE,
        epsilon=float(np.quantile(epsilons, 1 - confidence)),
        delta=delta,
        confidence=confidence,
        relation=relation,
        trials=sum(trials.counts),
        most=float("inf"),
        assumes="Jeffreys' prior of both error rates",
    )


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Finding:
    """Count the signs of single uploads, or of clients' sums."""
    trials, assumed = updates.counted(delta=claim.delta, confidence=confidence)
    finding = credible(trials, relation=claim.relation, delta=claim.delta, confidence=confidence)
    return replace(finding, assumes=all_assumed(finding.assumes, assumed))


METHOD = Method(
    name="bayes",
    title="Bayes",
    head="Bayes",
    guarantee=Guarantee.CREDIBLE,
    how="signs of {}",
    tests={"fixed": credible},
    of_updates=of_updates,
)
