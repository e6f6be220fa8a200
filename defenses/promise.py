"""What a defense guarantees, as data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fedsim.core.types import LocalTraining

if TYPE_CHECKING:  # it imports this module
    from defenses.accounting import Sampled

Epsilon = Callable[[LocalTraining, int, int], float]
"""(protocol, a client's number of examples, rounds it took part in) → its ε so far."""
Mu = Callable[[LocalTraining, int, int], float | None]
"""The same → its μ so far; None where the mechanism is not Gaussian in that setting."""
Steps = Callable[[LocalTraining, int, int], "Sampled | None"]
"""The same → its subsampled steps so far; None where sampling amplifies nothing."""


class Relation(StrEnum):
    """Which two data sets are neighbours: a mechanism must not let them be told apart."""

    ADD_OR_REMOVE_EXAMPLE = "add or remove one example"
    ZERO_EXAMPLE = "zero one example"
    REPLACE_EXAMPLE = "replace one example"
    REPLACE_ATTRIBUTE = "replace one attribute"
    REPLACE_CLIENT = "replace all of one client's data"

    @property
    def replaces(self) -> bool:
        """Whether the neighbours are as large as each other: up to two clipped gradients apart."""
        return self not in (Relation.ADD_OR_REMOVE_EXAMPLE, Relation.ZERO_EXAMPLE)

    def covers(self, other: "Relation") -> bool:
        """Return whether neighbours of the other relation are neighbours of this one too.

        A claim about adding or removing an example says less about replacing it: two steps, up to
        twice as far apart.
        """
        if self is Relation.REPLACE_CLIENT:
            return True
        attribute = self is Relation.REPLACE_EXAMPLE and other is Relation.REPLACE_ATTRIBUTE
        return self is other or attribute


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a defense guarantees; an ε is stated only where one exists.

    Attributes:
        statement: One line: what is promised, or what the defense is for.
        relation: Which two data sets cannot be told apart; None for a heuristic.
        mechanism: What makes it so; None for a heuristic.
        delta: δ of the guarantee.
        epsilon: ε at that δ, towards the server; None for a heuristic.
        mu: μ of Gaussian differential privacy, tighter than any one (ε, δ); None where it is not
            known to hold.
        sampled: Its Poisson-subsampled Gaussian steps; None where it has none.
        replaced: What it promises when one example is replaced instead; None where that is not
            known, or is what it promises anyway.
    """

    statement: str
    relation: Relation | None = None
    mechanism: str | None = None
    delta: float = 0.0
    epsilon: Epsilon | None = None
    mu: Mu | None = None
    sampled: Steps | None = None
    replaced: "Promise | None" = None

    @property
    def formal(self) -> bool:
        """Whether there is a proof behind it."""
        return self.epsilon is not None

    def about(self, relation: Relation) -> "Promise | None":
        """Return what is promised of these neighbours; None where nothing is."""
        for promise in (self, self.replaced):
            neighbours = promise.relation if promise and promise.formal else None
            if neighbours is not None and neighbours.covers(relation):
                return promise
        return None


HEURISTIC = Promise(statement="no guarantee")


def gaussian_mechanism(bound: float, std: float, delta: float) -> Promise:
    """Return the promise of Gaussian noise on an update of bounded norm.

    Two updates of norm ≤ `bound` are at most 2·bound apart; T rounds compose to the Gaussian
    mechanism with √T times the sensitivity (Dong, Roth, Su, "Gaussian Differential Privacy",
    JRSS B 2022). The number of examples and buffers such as BatchNorm statistics are uploaded
    as they are and are not covered.

    Args:
        bound: Largest Euclidean norm of an update before the noise.
        std: Of the noise on every entry; > 0.
        delta: δ of the guarantee.
    """

    def mu(local: LocalTraining, num_examples: int, rounds: int) -> float:  # noqa: ARG001
        return 2 * bound / std * rounds**0.5

    def epsilon(local: LocalTraining, num_examples: int, rounds: int) -> float:
        return gaussian_epsilon(mu(local, num_examples, rounds), delta)

    return Promise(
        statement=f"one round hides a whole update: norm at most {bound:g}, noise {std:g}",
        relation=Relation.REPLACE_CLIENT,
        mechanism="Gaussian mechanism",
        delta=delta,
        epsilon=epsilon,
        mu=mu,
    )


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return ε at δ of μ-Gaussian differential privacy.

    δ(ε) = Φ(−ε/μ + μ/2) − e^ε·Φ(−ε/μ − μ/2), solved for ε (Dong, Roth, Su, corollary 1).
    """
    from scipy.optimize import brentq
    from scipy.special import log_ndtr, ndtr

    def excess(epsilon: float) -> float:
        first = ndtr(mu / 2 - epsilon / mu)
        second = log_ndtr(-(epsilon / mu + mu / 2)) + epsilon  # in logs: e^ε overflows
        return float(first - math.exp(second)) - delta

    if mu == 0 or excess(0.0) <= 0:
        return 0.0
    highest = mu * (mu + 2 * math.sqrt(-2 * math.log(delta))) + 1
    return float(brentq(excess, 0.0, highest))  # type: ignore[arg-type]


def mu_of_epsilon(epsilon: float, delta: float) -> float:
    """Return the μ of Gaussian differential privacy that is this ε at δ."""
    from scipy.optimize import brentq

    high = 1.0
    while gaussian_epsilon(high, delta) < epsilon:
        high *= 2
    excess = lambda mu: gaussian_epsilon(mu, delta) - epsilon
    return float(brentq(excess, 0.0, high))  # type: ignore[arg-type]
