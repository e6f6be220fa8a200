"""Intervals for means of measurements that come from the same clients and the same rounds."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy
from numpy.typing import NDArray

from fedsim.core.units import Scale

LEVEL = 0.95
FEW = 5  # with fewer clients (or rounds), these are taken as fixed: nothing is said of others


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far one attack is above blind, per update: a client (or cohort) in a round.

    Attributes:
        values: The ledger's value less its blind guess.
        blinds: The blind guesses.
        rounds: The round of each.
        clients: The place of each one's client in `names`; −1 if pooled over clients.
        names: The clients.
        least: The smallest value that is possible; −inf if there is none.
        most: The largest.
    """

    values: NDArray[np.float64]
    blinds: NDArray[np.float64]
    rounds: NDArray[np.int64]
    clients: NDArray[np.int64]
    names: tuple[str, ...]
    least: float
    most: float

    @property
    def mean(self) -> float:
        """The mean over all updates."""
        return float(self.values.mean())

    @cached_property
    def clusters(self) -> dict[str, NDArray[np.int64]]:
        """What the interval generalises over: the cluster of each value, by kind."""
        kinds = {"clients": self.clients, "rounds": self.rounds}
        places = {name: np.unique(of, return_inverse=True)[1] for name, of in kinds.items()}
        counts = {name: int(of.max(initial=0)) + 1 for name, of in places.items()}
        wanted = [name for name, count in counts.items() if count >= FEW]
        largest = max(counts, key=lambda name: counts[name])
        wanted = wanted or [name for name in (largest,) if counts[name] > 1]
        return {name: places[name] for name in wanted}

    @property
    def over(self) -> str:
        """The clusters in words: `10 clients and 5 rounds`; empty of a single update."""
        return " and ".join(f"{of.max() + 1} {name}" for name, of in self.clusters.items())

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Return an interval for the mean; None of a single update.

        The variance is the largest of those clustered by clients, by rounds and by both (A.
        Cameron, J. Gelbach, D. Miller, "Robust inference with multiway clustering", 2011).
        The quantile is Student's with the smallest number of clusters less one (A. Cameron,
        D. Miller, "A practitioner's guide to cluster-robust inference", 2015, section VI).

        If all values are equal, their spread says nothing. Then the bound is exact: a value that
        has probability p shows in all of G clusters with p^G (C. Clopper, E. Pearson, 1934, for
        G successes in G trials), and the rest of the probability lies at the end of the scale.
        Without ends of the scale there is no interval.
        """
        if not self.clusters:
            return None
        count = min(int(of.max()) + 1 for of in self.clusters.values())
        mean, tail = self.mean, (1 - level) / 2
        if np.ptp(self.values) < 1e-12:
            return _of_equals(mean, count, tail, self.least, self.most)
        half = _quantile(1 - tail, count - 1) * self._error
        return max(mean - half, self.least), min(mean + half, self.most)

    @property
    def _error(self) -> float:
        """The standard error of the mean."""
        rest = self.values - self.mean
        parts = [_clustered(rest, of) for of in self.clusters.values()]
        if len(parts) == 2:
            parts.append(sum(parts) - float((rest**2).sum()) / len(rest) ** 2)
        return float(np.sqrt(max(parts)))

    def by(self, kind: str) -> "dict[int, Gap]":
        """Return those of each round, or of each client: kind is `rounds` or `clients`."""
        keys: NDArray[np.int64] = getattr(self, kind)
        order = np.argsort(keys, kind="stable")
        values, starts = np.unique(keys[order], return_index=True)
        groups = np.split(order, starts[1:])
        return {int(key): self.take(of) for key, of in zip(values, groups, strict=True)}

    def take(self, places: NDArray[np.int64] | Sequence[int]) -> "Gap":
        """Return some of the values."""
        places = np.asarray(places)
        return Gap(
            values=self.values[places],
            blinds=self.blinds[places],
            rounds=self.rounds[places],
            clients=self.clients[places],
            names=self.names,
            least=self.least,
            most=self.most,
        )


def _of_equals(
    mean: float, count: int, tail: float, least: float, most: float
) -> tuple[float, float] | None:
    """Return the exact interval of equal values; None without ends of the scale."""
    if not np.isfinite([least, most]).all():
        return None
    rest = 1 - tail ** (1 / count)
    return mean - rest * (mean - least), mean + rest * (most - mean)


@cache
def _quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's distribution."""
    return float(scipy.special.stdtrit(degrees, probability))


def _clustered(rest: NDArray[np.float64], clusters: NDArray[np.int64]) -> float:
    """Return the variance of a mean whose residuals belong to clusters."""
    sums = np.bincount(clusters, weights=rest)
    count = len(sums)
    return count / (count - 1) * float((sums**2).sum()) / len(rest) ** 2


def gap_of(rows: pa.Table, scale: Scale) -> Gap | None:
    """Return how far graded rows of one metric are above blind; None without any blind guess.

    Args:
        rows: Ledger rows (round, client, value, blind) of one attack and metric.
        scale: Of the metric.
    """
    rows = rows.filter(pc.fill_null(pc.is_finite(rows["blind"]), fill_value=False))
    if not rows.num_rows:
        return None
    values, blinds = rows["value"].to_numpy(), rows["blind"].to_numpy()
    coded = rows["client"].combine_chunks().dictionary_encode()
    return Gap(
        values=values - blinds,
        blinds=blinds,
        rounds=rows["round"].to_numpy().astype(np.int64),
        clients=coded.indices.fill_null(-1).to_numpy().astype(np.int64),
        names=tuple(coded.dictionary.to_pylist()),
        least=min(scale.low - float(blinds.max()), float((values - blinds).min())),
        most=max(scale.high - float(blinds.min()), float((values - blinds).max())),
    )


def mean_interval(
    values: NDArray[np.float64], least: float, most: float
) -> tuple[float, float] | None:
    """Return Student's interval of the mean of independent values; None of fewer than two.

    Equal values have the exact interval, as in `Gap.interval`.

    Args:
        values: One per seed.
        least: The smallest value that is possible; the interval ends there.
        most: The largest.
    """
    if len(values) < 2:
        return None
    mean = float(values.mean())
    if np.ptp(values) < 1e-12:
        return _of_equals(mean, len(values), (1 - LEVEL) / 2, least, most)
    reach = _quantile((1 + LEVEL) / 2, len(values) - 1) * float(values.std(ddof=1))
    reach /= len(values) ** 0.5
    return max(least, mean - reach), min(most, mean + reach)
