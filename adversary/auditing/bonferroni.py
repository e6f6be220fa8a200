"""Clopper–Pearson at every threshold, each at its share of the level.

The shares are those of all distinct thresholds between two scores: nothing is assumed of the
mechanism, and no trial is spent on choosing a threshold.
"""

from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.rates import epsilons_of_rates, most_epsilon
from adversary.auditing.trials import Trials
from defenses.promise import Relation

NAME = "clopper-pearson-bonferroni"


def bonferroni(
    trials: Trials, *, relation: Relation, delta: float = 1e-5, confidence: float = 0.95
) -> Finding:
    """Return the largest bound over all thresholds.

    Args:
        trials: With and without the canary.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: As `clopper_pearson`.
    """
    trials.check(delta=delta, confidence=confidence)
    thresholds = trials.thresholds()
    rates = trials.every_rate(thresholds, (1 - confidence) / len(thresholds))
    return Finding(
        method=NAME,
        guarantee=Guarantee.BOUND,
        epsilon=float(epsilons_of_rates(*rates, delta).max()),
        delta=delta,
        confidence=confidence,
        relation=relation,
        trials=sum(trials.counts),
        most=most_anywhere(min(trials.counts), delta=delta, confidence=confidence),
    )


def most_anywhere(trials: int, *, delta: float, confidence: float) -> float:
    """Return what `bonferroni` would show of as many trials of each hypothesis without error."""
    level = (1 - confidence) / (2 * trials + 1)
    return most_epsilon(trials, delta=delta, confidence=1 - level)


METHOD = Method(
    name=NAME,
    title="Clopper–Pearson, any threshold",
    head="CP, any threshold",
    guarantee=Guarantee.BOUND,
    tests={"fixed": bonferroni, "bonferroni": bonferroni},
)
