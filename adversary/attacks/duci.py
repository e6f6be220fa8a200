"""DUCI: how many records of a set a client used.

Y. Tong, J. Ye, S. Zarifzadeh, R. Shokri, "How much of my dataset did you use? Quantitative data
usage inference in machine learning", ICLR 2025. Details follow the authors' code, Privacy Meter.

Idea: an attack on membership errs at rates that models with known members show. Each record's
answer m̂ ∈ {0, 1} becomes (m̂ − FPR) / (TPR − FPR), which is right on average, and the answers of the
set's records are added up.

*Server must know*: the weights sent, the update, the number of examples, the protocol, auxiliary
data, and the set of records in question.
*Exact when*: the client's records are scored as those of rehearsed clients; then, before it is
clipped to [0, m], without bias, with a variance of about m · FPR (1 − FPR) / (TPR − FPR)² for few
records of m. Rehearsed clients have the labels of the auxiliary data. A client with many records of
one label hides them better, and is counted too low; so is a client with a large share as many
records as there are auxiliary ones.
*Differs from the paper*: TPR and FPR are of rehearsed clients, each attacked with the others as
reference models, pooled over their records, which are not those of the set; the threshold is the
one with the largest difference. Scores are RMIA's (`duci`) or the cosine's z-score (`duci-cosine`),
both among records of the same label under the same update. Who knows the defense reads uploads,
those of rehearsed clients too, through it (`adversary.adaptive.readings`).
"""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from adversary.adaptive.readings import Reading, usage_reading
from adversary.attack import Attack
from adversary.members.calibration import Calibration, Score, calibration, target_scores
from adversary.members.shadows import shadow_size
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View


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
        ValueError: The update is not finite, the client told no number of examples, there is no
            set for it, or the score tells no members of rehearsed clients.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    assert auxiliary.sets is not None
    rows = auxiliary.sets.rows.get(latest.update.client)
    if rows is None:
        raise NotApplicable(f"sets: must have one for client {latest.update.client}, got none")
    size = shadow_size(latest)
    reading = work.part(usage_reading, size, score)
    rehearsed = work.part(_calibration, size, score, reading)
    threshold, fpr, tpr = work.part(_rates, size, score, reading)
    named = target_scores(latest, work, rehearsed)[rows] > threshold
    return debiased(named, fpr, tpr)


def rates(rehearsed: Calibration) -> tuple[float, float, float]:
    """Return the threshold with the largest TPR − FPR on rehearsed clients, and both rates.

    Raises:
        NotApplicable: No threshold has a higher TPR than FPR.
    """
    order = rehearsed.scores.flatten().sort(descending=True)
    members = rehearsed.members.flatten()[order.indices].double()
    tpr = members.cumsum(0) / members.sum().clamp(min=1)
    fpr = (1 - members).cumsum(0) / (1 - members).sum().clamp(min=1)
    last = torch.cat([order.values.diff() < 0, torch.tensor([True])])  # equal scores go together
    best = int((tpr - fpr).masked_fill(~last, -1.0).argmax())
    if not float(tpr[best]) > float(fpr[best]):
        raise NotApplicable("score: must tell members of rehearsed clients, got TPR − FPR 0")
    below = order.values[best + 1] if best + 1 < len(order.values) else order.values[best] - 1
    return float((order.values[best] + below) / 2), float(fpr[best]), float(tpr[best])


def _calibration(work: Workspace, size: int, score: Score, reading: Reading) -> Calibration:
    return calibration(work, size, score, reading.read, in_training=reading.in_training)


def _rates(
    work: Workspace, size: int, score: Score, reading: Reading
) -> tuple[float, float, float]:
    return rates(work.part(_calibration, size, score, reading))


def debiased(named: Bool[Tensor, " m"], fpr: float, tpr: float) -> Float[Tensor, " 1"]:
    """Return Σ (m̂ − FPR) / (TPR − FPR), in [0, m]."""
    estimate = (float(named.sum()) - len(named) * fpr) / (tpr - fpr)
    return torch.tensor([min(max(estimate, 0.0), float(len(named)))], dtype=torch.float64)


ATTACKS = (
    Attack(
        name="duci",
        family="usage",
        infer=duci,
        needs=("inputs", "labels", "sets"),
        summary="number of a set's records that were used, from rmia's answers and their errors",
        rehearses=True,
    ),
    Attack(
        name="duci-cosine",
        family="usage",
        infer=partial(duci, score="cosine"),
        needs=("inputs", "labels", "sets"),
        summary="duci with the cosine's z-score in place of rmia",
        rehearses=True,
    ),
)
