"""Shadow clients: what clients of a round would have uploaded of records that are known.

They are undefended, drawn from the auxiliary data; the adversary knows which of a pool of records
each of them trained on.

*Differs from a client*: one that has more than half as many examples as the adversary has
auxiliary ones is rehearsed with as many as that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from adversary.memo import once
from adversary.rehearsal import defended, rehearse_with
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Candidates, LocalTraining, Observation, Params, Update

SHADOWS = {"gradient": 48, "weights": 16}  # clients of one round and size
POOL = 400  # auxiliary examples that are drawn from, and asked about


@dataclass(frozen=True, eq=False)
class Shadow:
    """A shadow client.

    Attributes:
        inputs: Its examples.
        labels: Theirs.
        members: Which of the pool it trained on.
        observation: Its update, undefended.
        name: Of its random streams.
    """

    inputs: Tensor
    labels: Tensor
    members: Tensor
    observation: Observation
    name: tuple[str, int]


@dataclass(frozen=True, eq=False)
class Shadows:
    """The shadow clients of one round and size, and an adversary that asks about their pool."""

    auxiliary: Auxiliary
    clients: Sequence[Shadow]


def shadow_size(observation: Observation) -> int:
    """Return how many examples to rehearse with: within a fifth of the client's number.

    Clients of about the same size then share their shadows.

    Raises:
        ValueError: The client told no number of examples.
    """
    told = observation.update.num_examples
    if told is None:
        raise ValueError("num_examples: must be told by the client, got none")
    return max(1, round(2 ** (round(2 * math.log2(max(1, told))) / 2)))


@once(size=1)  # whole updates; who needs less of them remembers that itself
def shadows(auxiliary: Auxiliary, sent: Params, *, local: LocalTraining, size: int) -> Shadows:
    """Rehearse clients on a part of the auxiliary data."""
    inputs, labels = auxiliary.inputs, auxiliary.labels
    assert inputs is not None
    assert labels is not None
    order = torch.randperm(len(labels), generator=derived(0, "pool"))
    pool = order[: max(POOL, 2 * size)]
    asked = Candidates(inputs[pool[:POOL]], labels[pool[:POOL]])
    like = Observation(sent, Update(1, "shadow", {}, size), local)
    clients = []
    for place in range(SHADOWS[local.upload]):
        name = ("shadow member", place)
        drawn = _draw(labels[pool], min(size, len(pool) // 2), derived(0, *name))
        mine = inputs[pool[drawn]], labels[pool[drawn]]
        members = torch.isin(torch.arange(len(asked.labels)), drawn)
        seen = rehearse_with(like, auxiliary, *mine, derived(0, *name, "train"))
        clients.append(Shadow(*mine, members, seen, name))
    return Shadows(replace(auxiliary, candidates=asked, defense=None), clients)


def shown(shadow: Shadow, auxiliary: Auxiliary) -> Observation:
    """Return what a shadow client uploads: defended, where the adversary knows the defense."""
    seen, mine = shadow.observation, (shadow.inputs, shadow.labels)
    if auxiliary.defense is None:
        return seen
    if auxiliary.defense.gradient is not None:  # inside training: the same examples, trained so
        stream = derived(0, *shadow.name, "train")
        seen = rehearse_with(seen, auxiliary, *mine, stream, hooked=True)
    return defended(seen, auxiliary, derived(0, *shadow.name, "defense"))


def _draw(labels: Tensor, count: int, generator: Generator) -> Tensor:
    """Return rows of a client, without repetition; few classes have most of them."""
    share = torch.rand(int(labels.max()) + 1, generator=generator).pow(4) + 1e-3
    return torch.multinomial(share[labels], count, generator=generator)
