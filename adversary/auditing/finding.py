"""What an audit shows: a number, what kind of guarantee it has, and which claim it may refute."""

from dataclasses import dataclass
from enum import StrEnum

from defenses.promise import Relation


class Guarantee(StrEnum):
    """What may be said of an audited ε.

    A `BOUND` is exceeded by the truth with at least its confidence, over repetitions of the audit.
    A `CREDIBLE` one is the end of an interval that holds the truth with that probability under a
    prior. An `ESTIMATE` may lie on either side of the truth.
    """

    BOUND = "bound"
    ESTIMATE = "estimate"
    CREDIBLE = "credible"


METRICS = {
    Guarantee.BOUND: "epsilon_lower",
    Guarantee.ESTIMATE: "epsilon_estimate",
    Guarantee.CREDIBLE: "epsilon_credible",
}
"""What the ledger calls each."""


GAUSSIAN = "a Gaussian mechanism"
SAMPLED = "a Poisson-subsampled Gaussian mechanism"
DENSITY = "noise with a density, and nothing after it"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One audited number.

    Attributes:
        method: As in the ledger.
        guarantee: What kind of number it is.
        epsilon: ε at δ.
        delta: δ.
        confidence: Of a bound or a credible interval; None of an estimate.
        relation: Which two data sets were told apart.
        trials: How many runs of the mechanism, or canaries, are behind it.
        most: The largest ε that so many trials could have shown; infinite for an estimate.
        assumes: What must be true of the mechanism beyond the claim; None for nothing.
        mu: μ of Gaussian differential privacy, where that is assumed.
        statistic: What was learned to look at; None if it was fixed beforehand.
    """

    method: str
    guarantee: Guarantee
    epsilon: float
    delta: float
    confidence: float | None
    relation: Relation
    trials: int
    most: float
    assumes: str | None = None
    mu: float | None = None
    statistic: str | None = None

    def exceeds(self, claimed: float, relation: Relation) -> bool:
        """Return whether it refutes a claimed ε at the same δ.

        Raises:
            ValueError: The claim is about other neighbours, or this is no bound.
        """
        check_comparable(self.relation, relation)
        if self.guarantee is not Guarantee.BOUND:
            raise ValueError(f"guarantee: must be a bound to refute a claim, got {self.guarantee}")
        return self.epsilon > claimed

    def __str__(self) -> str:
        sign = {"bound": "≥", "credible": "≥", "estimate": "≈"}[self.guarantee]
        sure = "" if self.confidence is None else f", {100 * self.confidence:g} %"
        assumed = f", assuming {self.assumes}" if self.assumes else ""
        return (
            f"ε {sign} {self.epsilon:.3g} at δ = {self.delta:g} ({self.guarantee}{sure}; "
            f"{self.relation}{assumed})"
        )


def check_comparable(audited: Relation, claimed: Relation) -> None:
    """Refuse to hold an audit of one relation against a claim about another.

    Raises:
        ValueError: The claim does not cover the audited neighbours.
    """
    if not claimed.covers(audited):
        raise ValueError(
            f"relation: an audit that tells '{audited}' apart must be compared with a claim that "
            f"covers it, got '{claimed}'"
        )


def check_probability(name: str, value: float) -> None:
    """Refuse a value that is no probability strictly between 0 and 1.

    Raises:
        ValueError: The value is 0 or less, or 1 or more.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name}: must be above 0 and below 1, got {value:g}")
