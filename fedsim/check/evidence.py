"""What a table shows about one rule: values with their margins, and what it cannot show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value that a rule is held against.

    Attributes:
        title: Of the attack, the audit's method, or the game.
        where: The round, the client, or the setting, in words; empty for all.
        value: As in the table, or a mean.
        base: What stands beside it, to which a rule adds its number; 0 for a plain limit.
        low, high: Ends of the margin of error of value − base; None without one.
        of: What the value is a mean of, in words.
    """

    title: str
    where: str
    value: float
    base: float
    low: float | None
    high: float | None
    of: str


@dataclass(frozen=True)
class Evidence:
    """All that a table shows about a rule.

    Attributes:
        values: Each is held against the limit.
        problems: Why the table cannot show that the rule is kept; a sentence each.
        notes: What a reader must know beside.
    """

    values: Sequence[Value] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(
            [*self.values, *other.values],
            [*self.problems, *other.problems],
            [*self.notes, *other.notes],
        )


def half_width(
    differences: Float[NDArray, " n"], clients: Sequence[str | None], confidence: float
) -> float | None:
    """Return the half width of a two-sided interval for a mean.

    None of a single client, and of clients whose values are all equal: nothing is to be read from
    their spread.

    Values of one client are not independent: clients are the clusters of the sandwich estimator
    with its C / (C − 1), and Student's t has C − 1 degrees of freedom. With a value per client it
    is the textbook interval. It is about clients like these in this run, not about other seeds.

    Source: Cameron, Miller, "A Practitioner's Guide to Cluster-Robust Inference", J. Human
    Resources 2015, Eq. 11.

    Args:
        differences: The values.
        clients: Whose each is.
        confidence: Of the interval, between 0 and 1.
    """
    from scipy.special import stdtrit

    names, place = np.unique([client or "" for client in clients], return_inverse=True)
    count = len(names)
    if count < 2 or np.ptp(differences) < 1e-12:
        return None
    sums = np.bincount(place, differences - differences.mean())
    error = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(differences)
    return float(stdtrit(count - 1, (1 + confidence) / 2) * error)
