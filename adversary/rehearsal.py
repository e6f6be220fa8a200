"""Rehearsals: what the protocol makes of auxiliary examples whose labels are known."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from adversary.local_training import drawn, grouping, train_alone, trained
from adversary.workspace import Workspace, working_copy
from fedsim.core.devices import device_of, here, moved
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation, Params

Examples: TypeAlias = tuple[Tensor, Tensor, Generator]
"""A client's inputs and labels, and what draws their order and what dropout leaves out."""


def rehearsed_size(observation: Observation) -> int:
    """Return how many examples to rehearse with: within a fifth of the client's number.

    Clients of about the same size then share their rehearsals; all batches are of one size.

    Raises:
        ValueError: The client told no number of examples.
    """
    count = observation.update.num_examples
    if count is None:
        raise NotApplicable("num_examples: must be told by the client, got none")
    if observation.local.upload == "gradient":
        return max(1, round(count / observation.update.num_clients))
    return round(2 ** (round(2 * math.log2(max(1, count))) / 2))


def rehearse(
    observation: Observation,
    work: Workspace,
    counts: Int[Tensor, " classes"],
    generator: Generator,
) -> Observation:
    """Do as the client did, with auxiliary examples drawn with these counts.

    Args:
        observation: As for `rehearse_with`.
        work: With auxiliary inputs and labels.
        counts: Examples of each class; of a class without any, others stand in.
        generator: Draws examples, their order, and what dropout leaves out.
    """
    return next(rehearse_all(observation, work, [(counts, generator)]))


def rehearse_all(
    observation: Observation,
    work: Workspace,
    clients: Iterable[tuple[Int[Tensor, " classes"], Generator]],
    *,
    hooked: bool = False,
) -> Iterator[Observation]:
    """Yield what `rehearse` returns of each client; those train together that can.

    Args:
        observation: As for `rehearse_with`.
        work: With auxiliary inputs and labels.
        clients: Their counts and generators, as for `rehearse`; several may share a generator.
        hooked: Whether clients train as the defense says that the adversary knows of.
    """
    inputs, labels = work.auxiliary.inputs, work.auxiliary.labels
    assert inputs is not None
    assert labels is not None

    def examples() -> Iterator[Examples]:
        for counts, stream in clients:
            rows = torch.cat([_draw(labels, c, int(n), stream) for c, n in enumerate(counts)])
            yield inputs[rows], torch.arange(len(counts)).repeat_interleave(counts), stream

    defense = work.auxiliary.defense if hooked else None
    model = work.lasting(working_copy)
    yield from rehearse_each(observation, work.auxiliary, model, examples(), defense=defense)


def rehearse_each(
    observation: Observation,
    auxiliary: Auxiliary,
    model: nn.Module,
    clients: Iterable[Examples],
    *,
    defense: Any = None,
) -> Iterator[Observation]:
    """Yield what `rehearse_with` returns of each client; those train together that can.

    Draws are the same ones. What trains together differs by rounding.

    Args:
        observation: As for `rehearse_with`.
        auxiliary: Says how many train together, and counts those that cannot.
        model: As for `rehearse_with`.
        clients: Examples, labels and generator of each; several may share a generator. Of those
            that train together all are taken before the first is trained.
        defense: As for `rehearse_with`.
    """
    model = _placed(model, auxiliary)
    waiting = (drawn(observation.local, *each, defense) for each in clients)
    for first in waiting:
        group = grouping(observation.local, auxiliary, first, defense)
        some = [first, *islice(waiting, group.size - 1)]
        yield from trained(observation, auxiliary, model, some, group, defense)


def rehearse_with(
    observation: Observation,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    generator: Generator,
    *,
    defense: Any = None,
) -> Observation:
    """Do as the client did, with these examples.

    Args:
        observation: The weights sent and the protocol; its update is not looked at.
        model: A copy to work with (`adversary.workspace.working_copy`), which is trained.
        inputs: The examples.
        labels: Theirs.
        generator: Draws their order, and what dropout leaves out.
        defense: The client trains as it says; its noise on uploads is not added.
    """
    client = drawn(observation.local, inputs, labels, generator, defense)
    return train_alone(observation, model, client, defense)


def batch_gradient(
    observation: Observation,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    generator: Generator,
    *,
    defense: Any = None,
) -> Params:
    """Return the gradient of one step on these examples, as the defense inside training takes it.

    Args:
        observation: The weights sent and the protocol; its update is not looked at.
        model: A copy to work with, as for `rehearse_with`.
        inputs: The batch, all of it.
        labels: Theirs.
        generator: Draws what dropout leaves out, and the coins of the defense.
        defense: As for `rehearse_with`.
    """
    step = replace(observation.local, upload="gradient", batch_size=len(labels))
    like = replace(observation, local=step)
    return rehearse_with(like, model, inputs, labels, generator, defense=defense).update.delta


def defended(observation: Observation, auxiliary: Auxiliary, generator: Generator) -> Observation:
    """Return a rehearsed client's observation after the defense that the adversary knows of."""
    model, defense, delta = auxiliary.model, auxiliary.defense, observation.update.delta
    assert defense is not None
    trained = {n: delta[n] for n, value in model.named_parameters() if value.requires_grad}
    changed = {**delta, **defense.apply(trained, defense.init(trained), generator)[0]}
    return replace(observation, update=replace(observation.update, delta=changed))


def _placed(model: nn.Module, auxiliary: Auxiliary) -> nn.Module:
    """Return a model to train, a copy of it where the adversary runs the model."""
    device = auxiliary.device
    if device.type == device_of(model).type or here().type != "cpu":
        return model
    memory = auxiliary.rehearsals.memory
    return memory.get(_placed, model, lambda: moved(model, device), keep=4)


def _draw(labels: Int[Tensor, " n"], label: int, count: int, generator: Generator) -> Tensor:
    """Return rows of one class, with repetition; of any class where there are none of it."""
    rows = torch.nonzero(labels == label)[:, 0]
    rows = rows if len(rows) else torch.arange(len(labels))
    return rows[torch.randint(len(rows), (count,), generator=generator)]
