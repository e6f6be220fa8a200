"""Membership attacks by an adversary that knows the defense.

As `adversary.adaptive` does for labels: rehearse clients with the defense on auxiliary data, of
which the adversary knows who was a member, and let each attack choose the correction of the update
with which it tells members from others best.

*Differs from a client*: one that has more than half as many examples as the adversary has
auxiliary ones is rehearsed with as many as that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from adversary.attack import Infer
from adversary.corrections import Correct, corrected, learn, whiten
from adversary.families import grade_members
from adversary.memo import once
from adversary.rehearsal import defended, rehearse_with
from fedsim.rng import generator as derived
from fedsim.types import (
    Auxiliary,
    Candidates,
    LocalTraining,
    Observation,
    Params,
    Truth,
    Update,
    View,
)  # fmt: skip

REHEARSED = {"gradient": 48, "weights": 16}  # clients; corrections are learned from one half, and
# each attack chooses on the other
POOL = 400  # auxiliary examples that are drawn from, and asked about
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
    told = latest.update.num_examples
    if told is None:
        raise ValueError("num_examples: must be told by the client, got none")
    size = max(1, round(2 ** (round(2 * math.log2(max(1, told))) / 2)))
    rehearsal = rehearsed(auxiliary, latest.sent, local=latest.local, size=size)
    name = chosen(rehearsal, latest.sent, inner)
    correct = rehearsal.corrections[name]
    return inner(corrected(latest, _names(auxiliary), correct), auxiliary, generator)


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
    """Rehearse clients on a part of the auxiliary data, and learn corrections from half of them."""
    inputs, labels = auxiliary.inputs, auxiliary.labels
    assert inputs is not None
    assert labels is not None
    order = torch.randperm(len(labels), generator=derived(0, "pool"))
    pool = order[: max(POOL, 2 * size)]
    asked = Candidates(inputs[pool[:POOL]], labels[pool[:POOL]])
    like = Observation(sent, Update(1, "shadow", {}, size), local)
    hooks = auxiliary.defense.gradient is not None
    plain, uploaded, clients, members = [], [], [], []
    for place in range(REHEARSED[local.upload]):
        name = ("shadow member", place)
        drawn = _draw(labels[pool], min(size, len(pool) // 2), derived(0, *name))
        mine = inputs[pool[drawn]], labels[pool[drawn]]
        without = trained = rehearse_with(like, auxiliary, *mine, derived(0, *name, "train"))
        if hooks:
            stream = derived(0, *name, "train")
            trained = rehearse_with(like, auxiliary, *mine, stream, hooked=True)
        shown = defended(trained, auxiliary, derived(0, *name, "defense"))
        if place % 2:
            clients.append(shown)
            members.append(torch.isin(torch.arange(len(asked.labels)), drawn))
        else:
            plain.append(_parts(without, auxiliary))
            uploaded.append(_parts(shown, auxiliary))
    corrections = {**learn(plain, uploaded), "whiten": whiten(uploaded)}
    asking = replace(auxiliary, candidates=asked, defense=None)
    return Rehearsal(asking, clients, members, corrections)


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
            view = corrected(seen, _names(rehearsal.auxiliary), correct)
            scores = inner(view, rehearsal.auxiliary, derived(0, "choose", place))
            truth = Truth(asked.labels[members], members.nonzero()[:, 0], members, asked.labels)
            values.append(grade_members(scores, truth)["auroc"])
        found[name] = torch.tensor(values)
    gains = {}
    for name, values in found.items():
        gain = (values - found["none"])[~(values - found["none"]).isnan()]
        error = gain.std() / len(gain) ** 0.5 if len(gain) > 1 else math.inf
        gains[name] = float(gain.mean()) if len(gain) and gain.mean() > SURE * error else 0.0
    return max(gains, key=lambda name: gains[name])  # of equals the first: none


def _draw(labels: Tensor, count: int, generator: Generator) -> Tensor:
    """Return rows of a client, without repetition; few classes have most of them."""
    share = torch.rand(int(labels.max()) + 1, generator=generator).pow(4) + 1e-3
    return torch.multinomial(share[labels], count, generator=generator)


def _names(auxiliary: Auxiliary) -> list[str]:
    return [name for name, value in auxiliary.model.named_parameters() if value.requires_grad]


def _parts(observation: Observation, auxiliary: Auxiliary) -> list[Tensor]:
    return [observation.update.delta[name] for name in _names(auxiliary)]
