"""DUCI: how many records of a set a client used.

Y. Tong, J. Ye, S. Zarifzadeh, R. Shokri, "How much of my dataset did you use? Quantitative data
usage inference in machine learning", ICLR 2025. Details follow the authors' code, Privacy Meter.

Idea: an attack on membership errs at rates that models with known members show. How many of a set's
records it names says how many were used.

*Server must know*: the weights sent, the update, the number of examples, the protocol, auxiliary
data, the set of records in question, and how many a client uses of such a set on average.
*Exact when*: the client's records are scored as those of rehearsed clients. A client whose labels
are unlike those of all rehearsed ones is counted with their errors; so is a client with a large
share as many records as there are auxiliary ones.
*Differs from the paper*: which adds up (m̂ − FPR) / (TPR − FPR) over the records, right on average
and with a variance of m · FPR (1 − FPR) / (TPR − FPR)²: far off where few of many records were
used. Here the answer is the expected number, given how many are named. TPR and FPR are those of one
rehearsed client or another, each attacked with the others as reference models. Where the round's
other clients are seen, TPR − FPR is such that all clients together have as many records named as
they have. Beforehand every number has the probability of largest entropy for the mean. Where the
score says nothing, the answer is that mean, the blind guess. The threshold is the one with the
largest difference of the pooled rates. Scores are RMIA's (`duci`) or the cosine's z-score
(`duci-cosine`), both among records of the same label under the same update. Who knows the defense
reads uploads, those of rehearsed clients too, through it (`adversary.adaptive.readings`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.adaptive.readings import Reading, usage_reading
from adversary.attack import Attack
from adversary.members.calibration import Calibration, Score, calibration, target_scores
from adversary.members.shadows import shadow_size
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation, View

SLOPE = 40.0  # of the log-probability of one record more, at most
STEPS = 60  # of bisection
FITS = 0.5  # standard deviation of a client's TPR − FPR, as a share of rehearsed ones
ROUNDING = 1e-12  # of a probability


def duci(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    score: Score = "rmia",
) -> Float[Tensor, " 1"]:
    """Return how many records of the client's set it used in the round.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and sets; clients are rehearsed with its defense.
        generator: Not used: the answer is deterministic.
        score: Of membership.

    Raises:
        ValueError: The update is not finite, the client told no number of examples, or there is no
            set for it.
    """
    work = workspace(view, auxiliary)
    named = _named(view.latest, work, score)
    cohort = work.part(_cohort, tuple(view.cohort), score)
    fpr, tpr = as_in_cohort(named.fpr, named.tpr, cohort)
    return expected(named.count, named.size, named.mean, fpr, tpr)


@dataclass(frozen=True, eq=False)
class Named:
    """How many records of a client's set are named.

    Attributes:
        count: k.
        size: m, of the set.
        mean: Of the number used, beforehand.
        fpr: Of rehearsed clients, shape (clients,).
        tpr: Theirs.
    """

    count: int
    size: int
    mean: float
    fpr: Tensor
    tpr: Tensor


def _named(observation: Observation, work: Workspace, score: Score) -> Named:
    sets, client = work.auxiliary.sets, observation.update.client
    assert sets is not None
    rows = sets.rows.get(client)
    if rows is None:
        raise NotApplicable(f"sets: must have one for client {client}, got none")
    size = shadow_size(observation)
    reading = work.part(usage_reading, size, score)
    rehearsed = work.part(_calibration, size, score, reading)
    cut = work.part(_threshold, size, score, reading)
    count = int((target_scores(observation, work, rehearsed)[rows] > cut).sum())
    mean = sets.expected.get(client, len(rows) / 2)
    return Named(count, len(rows), mean, *rates(rehearsed, cut))


def _cohort(work: Workspace, cohort: tuple[Observation, ...], score: Score) -> list[Named]:
    """Return what is named of every client of the round that can be asked about."""
    named = []
    for observation in cohort:
        try:
            named.append(_named(observation, work.at(observation), score))
        except ValueError:
            continue
    return named


def as_in_cohort(
    fpr: Float[Tensor, " clients"], tpr: Float[Tensor, " clients"], cohort: Sequence[Named]
) -> tuple[Float[Tensor, " clients"], Float[Tensor, " clients"]]:
    """Return rates with which the round's clients have as many records named as they have.

    On average they use what is expected of them. TPR − FPR is multiplied by what fits that, drawn
    towards 1 by as much as the fit errs.

    Args:
        fpr: Of rehearsed clients.
        tpr: Theirs.
        cohort: Of the round's clients; empty where they are not seen.
    """
    beyond = gain = error = 0.0  # Σ k − m FPR, Σ n (TPR − FPR), the variance of the first
    for each in cohort:
        f, t = float(each.fpr.mean()), float(each.tpr.mean())
        beyond += each.count - each.size * f
        gain += each.mean * (t - f)
        error += each.size * f * (1 - f) + each.mean**2 * (t - f) ** 2
    if gain <= 0:
        return fpr, tpr
    fits = FITS**2 * gain**2 / (FITS**2 * gain**2 + error)
    factor = max(0.0, 1 + fits * (beyond / gain - 1))
    return fpr, (fpr + factor * (tpr - fpr)).clamp(0, 1)


def threshold(rehearsed: Calibration) -> float:
    """Return the threshold with the largest TPR − FPR on rehearsed clients."""
    order = rehearsed.scores.flatten().sort(descending=True)
    members = rehearsed.members.flatten()[order.indices].double()
    tpr = members.cumsum(0) / members.sum().clamp(min=1)
    fpr = (1 - members).cumsum(0) / (1 - members).sum().clamp(min=1)
    last = torch.cat([order.values.diff() < 0, torch.tensor([True])])  # equal scores go together
    best = int((tpr - fpr).masked_fill(~last, -1.0).argmax())
    below = order.values[best + 1] if best + 1 < len(order.values) else order.values[best] - 1
    return float((order.values[best] + below) / 2)


def rates(
    rehearsed: Calibration, cut: float
) -> tuple[Float[Tensor, " clients"], Float[Tensor, " clients"]]:
    """Return FPR and TPR of every rehearsed client at a threshold."""
    named, members = (rehearsed.scores > cut).double(), rehearsed.members.double()
    fpr = (named * (1 - members)).sum(dim=1) / (1 - members).sum(dim=1).clamp(min=1)
    return fpr, (named * members).sum(dim=1) / members.sum(dim=1).clamp(min=1)


def expected(
    named: int,
    size: int,
    mean: float,
    fpr: Float[Tensor, " clients"],
    tpr: Float[Tensor, " clients"],
) -> Float[Tensor, " 1"]:
    """Return the expected number of records used, given how many of the set are named.

    Args:
        named: k.
        size: m, of the set.
        mean: Of the number beforehand.
        fpr: Of rehearsed clients; the client is like any of them.
        tpr: Theirs.
    """
    posterior = _prior(size, mean) * _likelihood(named, size, fpr, tpr)
    counts, total = torch.arange(size + 1.0, dtype=torch.float64), posterior.sum()
    posterior = posterior / total if total > 0 else _prior(size, mean)  # no client is like it
    return (posterior @ counts)[None]


def _prior(size: int, mean: float) -> Float[Tensor, " counts"]:
    """Return p(n) ∝ qⁿ for n = 0 … m: of all with this mean, that of the largest entropy."""
    counts = torch.arange(size + 1.0, dtype=torch.float64)
    low, high = -SLOPE, SLOPE  # log q
    for _ in range(STEPS):
        middle = (low + high) / 2
        above = float((middle * counts).softmax(dim=0) @ counts) > mean
        low, high = (low, middle) if above else (middle, high)
    return ((low + high) / 2 * counts).softmax(dim=0)


def _likelihood(
    named: int, size: int, fpr: Float[Tensor, " clients"], tpr: Float[Tensor, " clients"]
) -> Float[Tensor, " counts"]:
    """Return P(k named | n used) for every n, mean over the rehearsed clients.

    A sum of two binomial numbers, by the Fourier transform of its distribution.
    """
    turns = torch.arange(size + 1, dtype=torch.float64) * (2 * math.pi / (size + 1))
    circle = torch.polar(torch.ones_like(turns), turns)
    used = torch.arange(size + 1)
    total = torch.zeros(size + 1, dtype=torch.float64)
    for f, t in zip(fpr.tolist(), tpr.tolist(), strict=True):
        inside = (1 - t + t * circle)[:, None] ** used
        outside = (1 - f + f * circle)[:, None] ** (size - used)
        waves = inside * outside * circle[:, None].conj() ** named
        total += waves.mean(dim=0).real
    return torch.where(total > ROUNDING, total, 0.0) / max(1, len(fpr))


def _calibration(work: Workspace, size: int, score: Score, reading: Reading) -> Calibration:
    return calibration(work, size, score, reading.read, in_training=reading.in_training)


def _threshold(work: Workspace, size: int, score: Score, reading: Reading) -> float:
    return threshold(work.part(_calibration, size, score, reading))


ATTACKS = (
    Attack(
        name="duci",
        family="usage",
        on_device=True,
        infer=duci,
        needs=("inputs", "labels", "sets"),
        summary="number of a set's records that were used, from rmia's answers and their errors",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="duci-cosine",
        family="usage",
        on_device=True,
        infer=partial(duci, score="cosine"),
        needs=("inputs", "labels", "sets"),
        summary="duci with the cosine's z-score in place of rmia",
        rehearses=True,
        any_optimizer=True,
    ),
)
