"""Membership attacks by an adversary that knows the defense.

As `adversary.adaptive.labels` does for labels: defend shadow clients, of which the adversary knows
who was a member, and let each attack choose the correction of the update with which it tells
members from others best. Two of them send the hypotheses of candidates through the defense
(`pulled_back`). Under a defense inside training, each is tried with the candidates' gradients taken
through it, too (`adversary.members.in_training`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from adversary.adaptive.corrections import Correct, corrected, learn, place_at, whiten
from adversary.adaptive.pulled_back import pulled_back
from adversary.attack import Infer
from adversary.members.candidates import trained_names
from adversary.members.in_training import takes_part
from adversary.members.scores import within_classes
from adversary.members.shadows import shadow_size, shadows, shown
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.memory import Memory
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Observation, View

LUCK = 0.07  # chance that a choice is made where none helps


def infer(view: View, auxiliary: Auxiliary, generator: Generator, *, inner: Infer) -> Tensor:
    """Return the inner attack's scores of the candidates, given the corrected update.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels, candidates and the defense.
        generator: Of the inner attack.
        inner: The attack.

    Raises:
        ValueError: The client told no number of examples, or as the inner attack.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    size = shadow_size(latest)
    choice = work.part(chosen, size, inner, keep=64)
    correct = work.part(rehearsed, size, keep=4).corrections[choice.correction]
    read = corrected(latest, trained_names(auxiliary), correct, view.memory)
    asking = work if choice.in_training else work.derived(undefended)
    return inner(read, asking.auxiliary, generator)


class Choice(NamedTuple):
    """How an adversary that knows the defense compares uploads with candidates.

    Attributes:
        correction: Of the upload, by name.
        in_training: Whether candidates' gradients are taken through the defense inside training.
    """

    correction: str
    in_training: bool


NONE = Choice("none", in_training=False)


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Rehearsed clients of one round.

    Attributes:
        auxiliary: An adversary that asks about the pool, and does not know of the defense.
        knowing: One that does; None where the defense has no part in training.
        clients: Their defended updates, on which an attack chooses.
        members: Which of the pool each of them trained on.
        corrections: By name, learned from other clients.
        placed: The same at the length of an undefended update, about the mean of these.
    """

    auxiliary: Auxiliary
    knowing: Auxiliary | None
    clients: Sequence[Observation]
    members: Sequence[Tensor]
    corrections: dict[str, Correct]
    placed: dict[str, Correct]


def rehearsed(work: Workspace, size: int) -> Rehearsal:
    """Defend shadow clients, and learn corrections from half of them."""
    unaware = shadows(work, size)
    plain, uploaded, clients, members = [], [], [], []
    names = trained_names(work.auxiliary)
    parts = lambda observation: [observation.update.delta[name] for name in names]
    for place, shadow in enumerate(unaware.clients):
        upload = shown(shadow, work)
        if place % 2:
            clients.append(upload)
            members.append(shadow.members)
        else:
            plain.append(shadow.observation)
            uploaded.append(upload)
    learned = [[parts(observation) for observation in half] for half in (plain, uploaded)]
    corrections = {
        **learn(*learned),
        "whiten": whiten(learned[1]),
        **pulled_back(plain, uploaded, work.auxiliary),
    }
    placed = {
        name: correct if name in ("none", "scale", "expect") else place_at(correct, *learned)
        for name, correct in corrections.items()
    }
    pool, knowing = unaware.auxiliary, None
    if takes_part(work.auxiliary):
        knowing = replace(work.auxiliary, candidates=pool.candidates)
    return Rehearsal(pool, knowing, clients, members, corrections, placed)


def chosen(work: Workspace, size: int, inner: Infer) -> Choice:
    """Return the choice with which an attack tells members of rehearsed clients best."""
    return most_helpful(work.part(rehearsed, size, keep=4), inner, work.memory)


def most_helpful(rehearsal: Rehearsal, inner: Infer, memory: Memory) -> Choice:
    """Return the choice with which an attack tells members best, on rehearsed clients.

    None where none is better by more than chance.
    """
    candidates, names = rehearsal.auxiliary.candidates, trained_names(rehearsal.auxiliary)
    assert candidates is not None
    aurocs = {}
    for auxiliary in filter(None, (rehearsal.auxiliary, rehearsal.knowing)):
        for name, correct in rehearsal.corrections.items():
            values = []
            for place, (upload, members) in enumerate(
                zip(rehearsal.clients, rehearsal.members, strict=True)
            ):
                view = corrected(upload, names, correct, memory)
                scores = inner(view, auxiliary, derived(0, "choose", place))
                values.append(within_classes(scores, members, candidates.labels)["auroc"])
            choice = Choice(name, in_training=auxiliary is rehearsal.knowing)
            aurocs[choice] = torch.tensor(values)
    return best_of(aurocs)


def best_of(aurocs: dict[Choice, Tensor]) -> Choice:
    """Return the choice with the largest gain in AUROC; none if chance may explain it.

    A gain counts from Student's quantile on, at a level that all choices share (Bonferroni).

    Args:
        aurocs: Of every rehearsed client under each choice; none is one of them.
    """
    from scipy.special import stdtrit

    gains, level = {}, 1 - LUCK / max(1, len(aurocs) - 1)
    for choice, values in aurocs.items():
        gain = (values - aurocs[NONE])[~(values - aurocs[NONE]).isnan()]
        sure = len(gain) > 1 and float(gain.mean()) > float(
            stdtrit(len(gain) - 1, level) * gain.std() / len(gain) ** 0.5
        )
        gains[choice] = float(gain.mean()) if sure else 0.0
    return max(gains, key=lambda choice: gains[choice])  # of equals the first: none
