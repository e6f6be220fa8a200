"""Rehearsed clients with auxiliary texts, defended as the adversary knows that clients are."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from adversary.rehearsal import defended, rehearse_each
from adversary.text.reading import auxiliary_texts, vocabulary_of
from adversary.text.tables import find_tables
from adversary.workspace import Workspace, working_copy
from fedsim.core.errors import NotApplicable
from fedsim.core.form import IGNORED
from fedsim.core.rng import generator
from fedsim.core.types import Observation, Update

CLIENTS, FEWEST = 32, 4  # rehearsed
TEXTS = 4  # auxiliary: half of them for clients, half for what is learned from these
ENTRIES = 2**28  # of their rows, at most: 1 GiB


@dataclass(frozen=True, eq=False)
class Client:
    """A rehearsed client.

    Attributes:
        observation: Its defended update, of which only the tables are kept.
        inputs: Its texts.
        used: Tokens that are in them, without special ones.
        counts: How often each token is one of its targets.
    """

    observation: Observation
    inputs: Int[Tensor, "texts length"]
    used: Bool[Tensor, " vocabulary"]
    counts: Int[Tensor, " vocabulary"]


def rehearsable(work: Workspace) -> list[str]:
    """Return the tables that rehearsed clients upload.

    Raises:
        NotApplicable: There are too few auxiliary texts, or no table travels.
    """
    if (count := len(auxiliary_texts(work.auxiliary)[0])) < TEXTS:
        raise NotApplicable(f"auxiliary.inputs: must hold at least {TEXTS} texts, got {count}")
    tables = find_tables(work)
    every = (tables.tokens, tables.head, tables.positions)
    names = [it for it in every if it is not None and it in work.sent]
    if not names:  # adapters alone
        raise NotApplicable("update: must hold a table of tokens, got none: all were frozen")
    return names


def clients_of(work: Workspace, size: int) -> list[Client]:
    """Return clients with random auxiliary texts, defended."""
    inputs, targets = (it[1::2] for it in auxiliary_texts(work.auxiliary))
    names, stream = rehearsable(work), generator(0, "rehearsed texts")
    entries = sum(work.sent[name].numel() for name in names)
    like = Observation(work.sent, Update(1, "rehearsed", {}, size), work.local)
    rows = [
        torch.randint(len(inputs), (size,), generator=stream)
        if size > len(inputs)
        else torch.randperm(len(inputs), generator=stream)[:size]
        for _ in range(max(FEWEST, min(CLIENTS, ENTRIES // entries)))
    ]
    defense, model = work.auxiliary.defense, work.lasting(working_copy)
    hooked = defense if defense is not None and defense.gradient is not None else None
    examples = (
        (inputs[it], targets[it], generator(0, "rehearsed texts", place))
        for place, it in enumerate(rows)
    )
    clients, vocabulary = [], vocabulary_of(work.auxiliary)
    size_of = len(vocabulary)
    for place, plain in enumerate(
        rehearse_each(like, work.auxiliary, model, examples, defense=hooked)
    ):
        upload = defended(plain, work.auxiliary, generator(0, "rehearsed texts", place, "defense"))
        kept = {name: upload.update.delta[name] for name in names if name in upload.update.delta}
        texts, following = inputs[rows[place]], targets[rows[place]]
        used = torch.zeros(size_of, dtype=torch.bool)
        used[texts.unique()] = True
        used[list(vocabulary.special)] = False
        clients.append(
            Client(
                replace(upload, update=replace(upload.update, delta=kept)),
                texts,
                used,
                torch.bincount(following[following != IGNORED], minlength=size_of),
            )
        )
    return clients
