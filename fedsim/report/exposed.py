"""Who leaked most, and when: each client's round that is farthest above its blind guess."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.intervals import Gap

MOST = 150  # clients of a table or a map


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What one attack got from each of some clients; NaN (round 0) where it was not graded.

    Attributes:
        rounds: The round in which the client's value was farthest above blind.
        values: The metric there.
        blinds: The blind guess there.
        means: The metric's mean over the client's rounds; `mean_blinds` of blind.
        counts: The number of rounds.
    """

    rounds: NDArray[np.int64]
    values: NDArray[np.float64]
    blinds: NDArray[np.float64]
    means: NDArray[np.float64]
    mean_blinds: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """The strongest attack of a family, client by client.

    Attributes:
        curve: The attack.
        of: How many clients the attack was graded on.
        rows: Client, round, value and blind there, mean, mean of blind, number of rounds.
    """

    curve: Curve
    of: int
    rows: Sequence[tuple[str, int, float, float, float, float, int]]


def exposed(run: RunData) -> list[Exposed]:
    """Return who leaked most to the strongest attack of each family."""
    tables = []
    for family in run.families:
        curve = run.leaders(family)[0]
        if curve.gap is None or not (curve.gap.clients >= 0).any():
            continue
        names = most_exposed(run.clients, [curve.gap])
        it = peaks(curve.gap, names)
        columns = (it.rounds, it.values, it.blinds, it.means, it.mean_blinds, it.counts)
        rows = zip(names, *(column.tolist() for column in columns), strict=True)
        graded = len(np.unique(curve.gap.clients[curve.gap.clients >= 0]))
        tables.append(Exposed(curve=curve, of=graded, rows=[r for r in rows if r[-1]]))
    return tables


def most_exposed(clients: list[str], gaps: Sequence[Gap]) -> list[str]:
    """Return the clients to show, in order: of many, those farthest above blind on average."""
    if len(clients) <= MOST:
        return clients
    means = np.array([peaks(gap, clients).means - peaks(gap, clients).mean_blinds for gap in gaps])
    best = np.nan_to_num(means, nan=-np.inf).max(axis=0)
    chosen = np.sort(np.argsort(-best, kind="stable")[:MOST])
    return [clients[place] for place in chosen.tolist()]


def peaks(gap: Gap, names: Sequence[str]) -> Peaks:
    """Return what an attack got from each of the clients."""
    rows, shown = rows_of(gap, names)
    excess, blinds, rounds = gap.values[shown], gap.blinds[shown], gap.rounds[shown]
    order = np.lexsort((rounds, -excess, rows))  # by client, the highest first, then the earliest
    first = np.unique(rows[order], return_index=True)
    top = np.full(len(names), -1)
    top[first[0]] = order[first[1]]
    missing = top < 0
    at_top = lambda of: np.where(missing, np.nan, of[top]) if len(of) else np.full(len(top), np.nan)
    counts = np.bincount(rows, minlength=len(names))
    return Peaks(
        rounds=np.where(missing, 0, rounds[top]) if len(rounds) else np.zeros(len(top), int),
        values=at_top(excess + blinds),
        blinds=at_top(blinds),
        means=means_at(excess + blinds, rows, len(names)),
        mean_blinds=means_at(blinds, rows, len(names)),
        counts=counts,
    )


def rows_of(gap: Gap, names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place in `names` of each value that is from one of them, and these values."""
    order = {name: place for place, name in enumerate(names)}
    rows = np.array([*(order.get(name, -1) for name in gap.names), -1])[gap.clients]
    shown = np.flatnonzero(rows >= 0)
    return rows[shown], shown


def means_at(values: NDArray[np.float64], places: NDArray[np.int64], count: int) -> NDArray:
    """Return the mean of the finite values at each place; NaN where there is none."""
    real = np.isfinite(values)
    sums = np.bincount(places[real], weights=values[real], minlength=count)
    counts = np.bincount(places[real], minlength=count)
    return np.divide(sums, counts, out=np.full(count, np.nan), where=counts > 0)
