"""FedMIA: a client's own example stands out against all other clients of the round.

G. Zhu, D. Li, H. Gu, Y. Yao, L. Fan, Y. Han, "FedMIA: an effective membership inference attack
exploiting 'all for one' principle in federated learning", CVPR 2025 (arXiv 2402.06289), FedMIA-II.

Idea: the other clients do not have the record, so that their updates show how an update agrees with
it by chance. How far the target's cosine lies above theirs, in their standard deviations, needs no
shadow training.

*Server must know*: the weights sent, the updates of all clients of the round, the loss, and the
candidate records.
*Exact when*: the other clients' cosines are Gaussian, and none of them has the record. A record
that another client has scores low, so that records are also found by elimination.
*Differs from the paper*: the score is the z-score itself. The authors' code takes its Gaussian cdf,
which in floating point is exactly 1 from 8 standard deviations on, where the surest members are,
and adds 10⁻⁸ to the variances; here each has a share of the mean over the candidates added
(`shrink`), for rounds of few clients. One round by itself: the views of earlier rounds hold the
target's updates, but not the other clients'. A client whose update is not finite is no reference.
Who knows the defense reads all updates of the round as tells rehearsed clients' records best
(`adversary.adaptive.readings`).
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.adaptive.readings import Reading, asking_as, cosine_reading
from adversary.attack import Attack
from adversary.members.candidates import cosines
from adversary.members.references import read
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation, View


def fedmia(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    shrink: float = 0.1,
) -> Float[Tensor, " m"]:
    """Return how many standard deviations the cosine lies above the other clients'.

    Args:
        view: One client's observations, with the round's cohort; the latest is attacked.
        auxiliary: With candidates; with a defense, also inputs and labels.
        generator: Not used: the answer is deterministic.
        shrink: Share of the candidates' mean variance that is added to each one's.

    Raises:
        ValueError: The update is not finite, fewer than two other clients' are, or a client whose
            defense is known told no number of examples.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    reading = cosine_reading(work, latest)
    asking = asking_as(work, reading)
    score = cosines(read(latest, reading.read), asking)
    cohort = asking.part(_cohort, tuple(view.cohort), reading)
    others = [scores for client, scores in cohort.items() if client != latest.update.client]
    if len(others) < 2:
        raise NotApplicable(
            f"fedmia: the round must have at least 3 clients, got {len(others) + 1}"
        )
    by_chance = torch.stack(others)
    variance = by_chance.var(dim=0)
    variance = variance + shrink * variance.mean() + torch.finfo(variance.dtype).tiny
    return (score - by_chance.mean(dim=0)) / variance.sqrt()


def _cohort(
    work: Workspace, cohort: tuple[Observation, ...], reading: Reading
) -> dict[str, Tensor]:
    """Return the cosines of every client of the round whose update is finite."""
    scores = {}
    for observation in cohort:
        try:
            upload = read(observation, reading.read)
            scores[observation.update.client] = cosines(upload, work.at(observation))
        except ValueError:
            continue
    return scores


ATTACKS = (
    Attack(
        name="fedmia",
        family="membership",
        on_device=True,
        infer=fedmia,
        needs=("candidates",),
        summary="the cosine's z-score among the round's other clients",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="fedmia-rounds",
        family="membership",
        on_device=True,
        infer=fedmia,
        needs=("candidates",),
        summary="the z-score among clients, its mean over the rounds so far",
        rehearses=True,
        any_optimizer=True,
        over_rounds=True,
    ),
)
