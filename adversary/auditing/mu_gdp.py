"""μ-GDP: the μ of a Gaussian mechanism that a test's error rates show, and its ε.

Source: M. Nasr, J. Hayes, T. Steinke, B. Balle, F. Tramèr, M. Jagielski, N. Carlini, A. Terzis,
"Tight auditing of differentially private machine learning", USENIX Security 2023.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import scipy
from numpy.typing import NDArray

from adversary.auditing.claim import Claim
from adversary.auditing.coins import FRESH, CoinedUpdates, all_assumed
from adversary.auditing.finding import GAUSSIAN, Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.rates import mu_of_rates
from adversary.auditing.split import split
from adversary.auditing.trials import ZERO, Threshold, Trials
from defenses.promise import Relation, gaussian_epsilon

Array = NDArray[np.float64]


def mu_gdp(
    trials: Trials,
    threshold: Threshold = ZERO,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> Finding:
    """Return what independent trials show of the ε of a Gaussian mechanism.

    Args:
        trials: With and without the canary.
        threshold: Fixed beforehand, or chosen on other trials.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: As `clopper_pearson`.
    """
    trials.check(delta=delta, confidence=confidence)
    threshold.check(trials)
    level = 1 - confidence
    mu = mu_of_rates(*trials.rates_at(threshold.value, level))
    return Finding(
        method="mu-gdp",
        guarantee=Guarantee.BOUND,
        epsilon=gaussian_epsilon(mu, delta),
        delta=delta,
        confidence=confidence,
        relation=relation,
        trials=sum(trials.counts),
        most=gaussian_epsilon(mu_of_rates(*trials.bounded((0, 0), level)), delta),
        assumes=GAUSSIAN,
        mu=mu,
    )


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Finding:
    """Count the signs of single uploads, and compose μ of one round over the claim's rounds."""
    trials, times = updates.by_upload, claim.rounds**0.5
    finding = mu_gdp(trials, relation=claim.relation, delta=claim.delta, confidence=confidence)
    mu = times * (finding.mu or 0.0)
    most = times * mu_of_rates(*trials.bounded((0, 0), 1 - confidence))
    return replace(
        finding,
        epsilon=gaussian_epsilon(mu, claim.delta),
        mu=mu,
        most=gaussian_epsilon(most, claim.delta),
        assumes=all_assumed(finding.assumes, FRESH),
    )


def mus_of_rates(false_positives: Array, false_negatives: Array, delta: float) -> Array:  # noqa: ARG001
    """Return the μ that tests with these error rates show; it needs no δ."""
    return -scipy.special.ndtri(false_positives) - scipy.special.ndtri(false_negatives)


METHOD = Method(
    name="mu-gdp",
    title="μ-GDP (assumes it is Gaussian)",
    head="μ-GDP",
    guarantee=Guarantee.BOUND,
    how="signs of single uploads, composed over rounds",
    tests={"fixed": mu_gdp, "split": partial(split, test=mu_gdp, gain=mus_of_rates)},
    of_updates=of_updates,
)
