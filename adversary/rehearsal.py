"""Rehearsals: what the protocol makes of auxiliary examples whose labels are known."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from adversary.workspace import Workspace, loaded, working_copy
from fedsim.core.errors import NotApplicable
from fedsim.core.params import subtract
from fedsim.core.rng import global_stream
from fedsim.core.sgd import descend, mean_gradient, shuffled
from fedsim.core.types import Auxiliary, Observation, Params


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
    *,
    hooked: bool = False,
) -> Observation:
    """Do as the client did, with auxiliary examples drawn with these counts.

    Args:
        observation: As for `rehearse_with`.
        work: With auxiliary inputs and labels.
        counts: Examples of each class; of a class without any, others stand in.
        generator: Draws examples, their order, and what dropout leaves out.
        hooked: Whether the client trains as the defense says that the adversary knows of.
    """
    inputs, labels = work.auxiliary.inputs, work.auxiliary.labels
    assert inputs is not None
    assert labels is not None
    rows = torch.cat([_draw(labels, c, int(n), generator) for c, n in enumerate(counts)])
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    defense = work.auxiliary.defense if hooked else None
    model = work.lasting(working_copy)
    return rehearse_with(observation, model, inputs[rows], labels, generator, defense=defense)


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
    local, model = observation.local, loaded(model, observation.sent)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    hook = (defense is not None and defense.gradient) or mean_gradient
    batches = (defense is not None and defense.batches) or shuffled

    def gradient(batch: Tensor) -> Sequence[Tensor]:
        return hook(model, trained, inputs[batch], labels[batch], local, generator)

    with global_stream(int(torch.randint(2**62, (1,), generator=generator)), "rehearsal"):
        if local.upload == "gradient":
            delta = dict(zip(trained, gradient(torch.arange(len(labels))), strict=True))
        else:
            steps = batches(len(labels), local, generator)
            descend(list(trained.values()), local, steps, gradient)
            sent = {name: observation.sent[name] for name in model.state_dict()}
            delta = subtract(model.state_dict(), sent)
    delta = {name: value.detach() for name, value in delta.items()}
    update = replace(observation.update, delta=delta, num_examples=len(labels), num_clients=1)
    return replace(observation, update=update)


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


def _draw(labels: Int[Tensor, " n"], label: int, count: int, generator: Generator) -> Tensor:
    """Return rows of one class, with repetition; of any class where there are none of it."""
    rows = torch.nonzero(labels == label)[:, 0]
    rows = rows if len(rows) else torch.arange(len(labels))
    return rows[torch.randint(len(rows), (count,), generator=generator)]
