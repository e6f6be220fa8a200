"""What theory claims of a mechanism: an ε for some neighbours, which an audit may refute."""

import math
from dataclasses import dataclass

from defenses.accounting import Sampled
from defenses.promise import Promise, Relation, gaussian_epsilon
from fedsim.core.types import LocalTraining


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a mechanism claims.

    Attributes:
        relation: The neighbours that it is about.
        delta: δ.
        epsilon: ε of all rounds together; None if nothing is claimed.
        mu: μ of Gaussian differential privacy of all rounds together; None if it is not Gaussian.
        round_mu: The same of one round.
        sampled: The Poisson-subsampled Gaussian steps of all rounds; None if it has none.
        rounds: How many there are.
        density: Whether its noise has a density on every entry, and nothing comes after it.
        client: Of which client; empty for a mechanism by itself.
        mechanism: What makes it so.
        beside: What it claims of other neighbours, in words: no measure of this audit.
    """

    relation: Relation
    delta: float
    epsilon: float | None = None
    mu: float | None = None
    round_mu: float | None = None
    sampled: Sampled | None = None
    rounds: int = 1
    density: bool = False
    client: str = ""
    mechanism: str = ""
    beside: str = ""

    def tpr_at(self, fpr: float) -> float:
        """Return the largest true positive rate of a test with a false positive rate."""
        if self.mu is not None:
            from scipy.special import ndtr, ndtri

            return float(ndtr(ndtri(fpr) + self.mu))
        if self.epsilon is None:
            return 1.0
        up = self.delta + math.exp(min(700.0, self.epsilon)) * fpr
        down = 1 - math.exp(-self.epsilon) * (1 - self.delta - fpr)
        return min(1.0, up, down)


def claim_of(
    promise: Promise,
    local: LocalTraining,
    num_examples: int,
    rounds: int,
    *,
    delta: float | None = None,
) -> Claim:
    """Return what a defense's promise comes to for a client.

    Args:
        promise: A formal one, about the audited neighbours.
        local: How the client trains.
        num_examples: How many examples it has.
        rounds: In how many rounds it takes part.
        delta: At another δ than the promise's.

    Raises:
        ValueError: ε is not known at this δ.
    """
    assert promise.epsilon is not None
    assert promise.relation is not None
    delta = delta or promise.delta
    mu, round_mu = (
        promise.mu(local, num_examples, count) if promise.mu else None for count in (rounds, 1)
    )
    if delta == promise.delta:
        epsilon = promise.epsilon(local, num_examples, rounds)
    elif mu is not None:
        epsilon = gaussian_epsilon(mu, delta)
    else:
        raise ValueError(
            f"delta: must be the defense's δ = {promise.delta:g}, at which alone its ε is known, "
            f"got {delta:g}"
        )
    return Claim(
        relation=promise.relation,
        delta=delta,
        epsilon=epsilon,
        mu=mu,
        round_mu=round_mu,
        sampled=promise.sampled(local, num_examples, rounds) if promise.sampled else None,
        rounds=rounds,
        mechanism=promise.mechanism or "",
    )
