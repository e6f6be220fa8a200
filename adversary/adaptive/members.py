"""Membership attacks by an adversary that knows the defense.

As `adversary.adaptive.labels` does for labels: defend shadow clients, of which the adversary knows
who was a member, and let each attack choose the correction of the update with which it tells
members from others best. Two of them send the hypotheses of candidates through the defense
(`pulled_back`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from adversary.adaptive.corrections import Correct, corrected, learn, place_at, whiten
from adversary.adaptive.pulled_back import pulled_back
from adversary.attack import Infer
from adversary.members.candidates import trained_names
from adversary.members.scores import within_classes
from adversary.members.shadows import shadow_size, shadows, shown
from adversary.workspace import Workspace, workspace
from fedsim.core.memory import Memory
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Observation, View

SURE = 1.5  # standard errors by which a correction must help to be chosen


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
    correct = work.part(rehearsed, size, keep=4).corrections[
        work.part(chosen, size, inner, keep=64)
    ]
    names = trained_names(auxiliary)
    return inner(corrected(latest, names, correct, view.memory), auxiliary, generator)


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Rehearsed clients of one round.

    Attributes:
        auxiliary: An adversary that asks about the pool.
        clients: Their defended updates, on which an attack chooses.
        members: Which of the pool each of them trained on.
        corrections: By name, learned from other clients.
        placed: The same at the length of an undefended update, about the mean of these.
    """

    auxiliary: Auxiliary
    clients: Sequence[Observation]
    members: Sequence[Tensor]
    corrections: dict[str, Correct]
    placed: dict[str, Correct]


def rehearsed(work: Workspace, size: int) -> Rehearsal:
    """Defend shadow clients, and learn corrections from half of them."""
    undefended = shadows(work, size)
    plain, uploaded, clients, members = [], [], [], []
    names = trained_names(work.auxiliary)
    parts = lambda seen: [seen.update.delta[name] for name in names]
    for place, shadow in enumerate(undefended.clients):
        upload = shown(shadow, work)
        if place % 2:
            clients.append(upload)
            members.append(shadow.members)
        else:
            plain.append(shadow.observation)
            uploaded.append(upload)
    learned = [[parts(seen) for seen in half] for half in (plain, uploaded)]
    corrections = {
        **learn(*learned),
        "whiten": whiten(learned[1]),
        **pulled_back(plain, uploaded, work.auxiliary),
    }
    placed = {
        name: correct if name in ("none", "scale", "expect") else place_at(correct, *learned)
        for name, correct in corrections.items()
    }
    return Rehearsal(undefended.auxiliary, clients, members, corrections, placed)


def chosen(work: Workspace, size: int, inner: Infer) -> str:
    """Return the correction with which an attack tells members of rehearsed clients best."""
    return most_helpful(work.part(rehearsed, size, keep=4), inner, work.memory)


def most_helpful(rehearsal: Rehearsal, inner: Infer, memory: Memory) -> str:
    """Return the correction with which an attack tells members best, on rehearsed clients.

    None where none is better by more than chance.
    """
    candidates, names = rehearsal.auxiliary.candidates, trained_names(rehearsal.auxiliary)
    assert candidates is not None
    aurocs = {}
    for name, correct in rehearsal.corrections.items():
        values = []
        for place, (upload, members) in enumerate(
            zip(rehearsal.clients, rehearsal.members, strict=True)
        ):
            view = corrected(upload, names, correct, memory)
            scores = inner(view, rehearsal.auxiliary, derived(0, "choose", place))
            values.append(within_classes(scores, members, candidates.labels)["auroc"])
        aurocs[name] = torch.tensor(values)
    return best_of(aurocs)


def best_of(aurocs: dict[str, Tensor]) -> str:
    """Return the correction with the largest gain in AUROC; none if chance may explain it.

    Args:
        aurocs: Of every rehearsed client under each correction; `none` is one of them.
    """
    gains = {}
    for name, values in aurocs.items():
        gain = (values - aurocs["none"])[~(values - aurocs["none"]).isnan()]
        error = gain.std() / len(gain) ** 0.5 if len(gain) > 1 else math.inf
        gains[name] = float(gain.mean()) if len(gain) and gain.mean() > SURE * error else 0.0
    return max(gains, key=lambda name: gains[name])  # of equals the first: none
