"""Rehearsals: what the protocol makes of auxiliary examples whose labels are known."""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from torch.nn import functional

from adversary.head import working_copy
from fedsim.params import subtract
from fedsim.rng import global_stream
from fedsim.sgd import descend, epoch_orders
from fedsim.types import Auxiliary, Observation


def rehearse(
    observation: Observation,
    auxiliary: Auxiliary,
    counts: Int[Tensor, " classes"],
    generator: Generator,
) -> Observation:
    """Do as the client did, with auxiliary examples drawn with these counts.

    Args:
        observation: The weights sent and the protocol; its update is not looked at.
        auxiliary: With inputs and labels.
        counts: Examples of each class; of a class without any, others stand in.
        generator: Draws examples, their order, and what dropout leaves out.
    """
    inputs, labels, local = auxiliary.inputs, auxiliary.labels, observation.local
    assert inputs is not None
    assert labels is not None
    rows = torch.cat([_draw(labels, c, int(n), generator) for c, n in enumerate(counts)])
    inputs, labels = inputs[rows], torch.arange(len(counts)).repeat_interleave(counts)
    model = working_copy(auxiliary, observation.sent)
    trained = [value for value in model.parameters() if value.requires_grad]
    loss = partial(functional.cross_entropy, label_smoothing=local.label_smoothing)

    def gradient(batch: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(model(inputs[batch]), labels[batch]), trained)

    with global_stream(int(torch.randint(2**62, (1,), generator=generator)), "rehearsal"):
        if local.upload == "gradient":
            names = [name for name, value in model.named_parameters() if value.requires_grad]
            delta = dict(zip(names, gradient(torch.arange(len(labels))), strict=True))
        else:
            orders = epoch_orders(len(labels), local, generator)
            batches = [batch for order in orders for batch in order.split(local.batch_size)]
            descend(trained, local, batches, gradient)
            sent = {name: observation.sent[name] for name in model.state_dict()}
            delta = subtract(model.state_dict(), sent)
    delta = {name: value.detach() for name, value in delta.items()}
    update = replace(observation.update, delta=delta, num_examples=len(labels), num_clients=1)
    return replace(observation, update=update)


def _draw(labels: Int[Tensor, " n"], label: int, count: int, generator: Generator) -> Tensor:
    """Return rows of one class, with repetition; of any class where there are none of it."""
    own = torch.nonzero(labels == label)[:, 0]
    own = own if len(own) else torch.arange(len(labels))
    return own[torch.randint(len(own), (count,), generator=generator)]
