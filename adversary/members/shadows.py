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
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.members.scores import groups_of
from adversary.rehearsal import defended, rehearse_each
from adversary.workspace import Workspace, undefended, working_copy
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Candidates, Observation, Update

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
    count = observation.update.num_examples
    if count is None:
        raise NotApplicable("num_examples: must be told by the client, got none")
    return max(1, round(2 ** (round(2 * math.log2(max(1, count))) / 2)))


def shadows(work: Workspace, size: int) -> Shadows:
    """Return shadow clients, rehearsed on a part of the auxiliary data.

    They are whole updates, so that those of one size and model are kept; who needs less of them
    keeps that as a part of the workspace.
    """
    return work.derived(undefended).part(_rehearsed, size, keep=1)


def _rehearsed(work: Workspace, size: int) -> Shadows:
    inputs, labels = work.auxiliary.inputs, work.auxiliary.labels
    assert inputs is not None
    assert labels is not None
    if len(labels) < 2:
        raise NotApplicable(f"auxiliary: must have at least 2 records, got {len(labels)}")
    order = torch.randperm(len(labels), generator=derived(0, "pool"))
    pool = order[: max(POOL, 2 * size)]
    candidates = Candidates(inputs[pool[:POOL]], labels[pool[:POOL]])
    like = Observation(work.sent, Update(1, "shadow", {}, size), work.local)
    draws = [
        _draw(labels[pool], min(size, len(pool) // 2), derived(0, "shadow member", place))
        for place in range(SHADOWS[work.local.upload])
    ]
    clients = trained(like, work, Candidates(inputs[pool], labels[pool]), draws, "shadow member")
    clients = [replace(client, members=client.members[:POOL]) for client in clients]
    return Shadows(replace(work.auxiliary, candidates=candidates), clients)


def trained(
    like: Observation,
    work: Workspace,
    records: Candidates,
    hands: Sequence[Int[Tensor, " _"]],
    name: str,
) -> list[Shadow]:
    """Return undefended clients that train on records.

    Args:
        like: The weights sent and the protocol.
        work: Of the model that they start from.
        records: All.
        hands: Rows of each client.
        name: Of the clients' random streams.
    """
    names = [(name, place) for place in range(len(hands))]
    examples = [(records.inputs[rows], records.labels[rows]) for rows in hands]
    streams = (derived(0, *it, "train") for it in names)
    clients = ((*given, stream) for given, stream in zip(examples, streams, strict=True))
    uploads = rehearse_each(like, work.auxiliary, work.lasting(working_copy), clients)
    every = torch.arange(len(records.labels))
    return [
        Shadow(*given, torch.isin(every, rows), upload, name)
        for given, rows, upload, name in zip(examples, hands, uploads, names, strict=True)
    ]


def shown(shadow: Shadow, work: Workspace) -> Observation:
    """Return what a shadow client uploads: defended, where the adversary knows the defense."""
    upload, defense = shadow.observation, work.auxiliary.defense
    if defense is None:
        return upload
    if defense.gradient is not None:  # inside training: the same examples, trained so
        model, stream = work.lasting(working_copy), derived(0, *shadow.name, "train")
        client = (shadow.inputs, shadow.labels, stream)
        (upload,) = rehearse_each(upload, work.auxiliary, model, [client], defense=defense)
    return defended(upload, work.auxiliary, derived(0, *shadow.name, "defense"))


def _draw(labels: Tensor, count: int, generator: Generator) -> Tensor:
    """Return rows of a client, without repetition; few classes (of texts, lengths) have most."""
    groups = groups_of(labels)
    share = torch.rand(int(groups.max()) + 1, generator=generator).pow(4) + 1e-3
    return torch.multinomial(share[groups], count, generator=generator)
