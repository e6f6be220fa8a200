"""Membership attacks by an adversary that knows the defense.

As `adversary.adaptive.labels` does for labels: defend shadow clients, of which the adversary knows
who was a member, and let each attack choose the correction of the update with which it tells
members from others best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from adversary.adaptive.corrections import Correct, corrected, learn, whiten
from adversary.attack import Infer
from adversary.members.candidates import trained_names
from adversary.members.scores import within_classes
from adversary.members.shadows import shadow_size, shadows, shown
from adversary.memo import once
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params, View

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
    latest = view.latest
    size = shadow_size(latest)
    rehearsal = rehearsed(auxiliary, latest.sent, local=latest.local, size=size)
    name = chosen(rehearsal, latest.sent, inner)
    correct = rehearsal.corrections[name]
    return inner(corrected(latest, trained_names(auxiliary), correct), auxiliary, generator)


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Rehearsed clients of one round.

    Attributes:
        auxiliary: An adversary that asks about the pool.
        clients: Their defended updates, on which an attack chooses.
        members: Which of the pool each of them trained on.
        corrections: By name, learned from other clients.
    """

    auxiliary: Auxiliary
    clients: Sequence[Observation]
    members: Sequence[Tensor]
    corrections: dict[str, Correct]


@once(size=4)
def rehearsed(auxiliary: Auxiliary, sent: Params, *, local: LocalTraining, size: int) -> Rehearsal:
    """Defend shadow clients, and learn corrections from half of them."""
    there = shadows(auxiliary, sent, local=local, size=size)
    plain, uploaded, clients, members = [], [], [], []
    for place, shadow in enumerate(there.clients):
        seen = shown(shadow, auxiliary)
        if place % 2:
            clients.append(seen)
            members.append(shadow.members)
        else:
            plain.append(_parts(shadow.observation, auxiliary))
            uploaded.append(_parts(seen, auxiliary))
    corrections = {**learn(plain, uploaded), "whiten": whiten(uploaded)}
    return Rehearsal(there.auxiliary, clients, members, corrections)


@once(size=64)
def chosen(rehearsal: Rehearsal, sent: Params, inner: Infer) -> str:  # noqa: ARG001
    """Return the correction with which an attack tells members best, on rehearsed clients.

    None where none is better by more than chance.
    """
    found = {}
    asked = rehearsal.auxiliary.candidates
    assert asked is not None
    for name, correct in rehearsal.corrections.items():
        values = []
        for place, (seen, members) in enumerate(
            zip(rehearsal.clients, rehearsal.members, strict=True)
        ):
            view = corrected(seen, trained_names(rehearsal.auxiliary), correct)
            scores = inner(view, rehearsal.auxiliary, derived(0, "choose", place))
            values.append(within_classes(scores, members, asked.labels)["auroc"])
        found[name] = torch.tensor(values)
    gains = {}
    for name, values in found.items():
        gain = (values - found["none"])[~(values - found["none"]).isnan()]
        error = gain.std() / len(gain) ** 0.5 if len(gain) > 1 else math.inf
        gains[name] = float(gain.mean()) if len(gain) and gain.mean() > SURE * error else 0.0
    return max(gains, key=lambda name: gains[name])  # of equals the first: none


def _parts(observation: Observation, auxiliary: Auxiliary) -> list[Tensor]:
    return [observation.update.delta[name] for name in trained_names(auxiliary)]
