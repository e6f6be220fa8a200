"""Learned: a statistic from half of the runs, certified by the other half. Assumes nothing.

A statistic that is chosen beforehand sees only what its author expected. Here half of the runs
choose among features of every tensor and predictors of all of them (`statistics`); the other runs
bound the error rates of that one test by Clopper–Pearson. The choice costs power, never validity.

Source: M. Nasr et al., "Adversary instantiation", IEEE S&P 2021, for the bound; a learned test on
held-out runs as in F. Lu et al., "A general framework for auditing differentially private machine
learning", NeurIPS 2022.
"""

from dataclasses import replace

from adversary.auditing.clopper_pearson import clopper_pearson
from adversary.auditing.features import Features
from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.mu_gdp import mu_gdp
from adversary.auditing.statistics import Chosen
from adversary.auditing.trials import Threshold, Trials
from defenses.promise import Relation


def learned(
    features: Features, *, relation: Relation, delta: float = 1e-5, confidence: float = 0.95
) -> Finding:
    """Return what a learned test shows of ε, whatever the mechanism.

    Args:
        features: Of all runs; every second one chooses the test.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: As `clopper_pearson`, of half of the runs.
    """
    chosen = features.by_epsilon
    finding = clopper_pearson(
        *_certified(features, chosen), relation=relation, delta=delta, confidence=confidence
    )
    return replace(finding, method="learned", statistic=chosen.name)


def learned_mu_gdp(
    features: Features, *, relation: Relation, delta: float = 1e-5, confidence: float = 0.95
) -> Finding:
    """Return what a learned test shows of the ε of a Gaussian mechanism; as `learned`."""
    chosen = features.by_mu
    finding = mu_gdp(
        *_certified(features, chosen), relation=relation, delta=delta, confidence=confidence
    )
    return replace(finding, method="learned-mu-gdp", statistic=chosen.name)


def _certified(features: Features, chosen: Chosen) -> tuple[Trials, Threshold]:
    """Return the scores of the runs that chose nothing, and the test's threshold."""
    rest = features.half(1)
    trials = Trials(chosen.score(rest.without), chosen.score(rest.having))
    return trials, Threshold(chosen.threshold)


METHOD = Method(
    name="learned",
    title="learned statistic, Clopper–Pearson",
    head="learned CP",
    guarantee=Guarantee.BOUND,
    of_features=learned,
)
GAUSSIAN = Method(
    name="learned-mu-gdp",
    title="learned statistic, μ-GDP (assumes it is Gaussian)",
    head="learned μ-GDP",
    guarantee=Guarantee.BOUND,
    of_features=learned_mu_gdp,
)
