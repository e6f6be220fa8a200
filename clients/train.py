"""Local training: the weights sent and private data in, what is uploaded and the truth out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from defenses.defense import Batches, Gradient
from fedsim.sgd import descend, epoch_orders
from fedsim.types import LocalTraining, Params


def batch_gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Float[Tensor, "batch *shape"],
    labels: Int[Tensor, " batch"],
    local: LocalTraining,
    generator: Generator,  # noqa: ARG001
) -> tuple[Tensor, ...]:
    """Return the gradient of the mean cross-entropy over a batch, per trainable parameter."""
    loss = functional.cross_entropy(model(inputs), labels, label_smoothing=local.label_smoothing)
    return torch.autograd.grad(loss, list(parameters.values()))


def shuffled(count: int, local: LocalTraining, generator: Generator) -> list[Tensor]:
    """Return the positions of each step's examples: every one once an epoch, in a new order.

    For an uploaded gradient it is one batch.
    """
    if local.upload == "gradient":
        return [torch.randperm(count, generator=generator)[: local.batch_size]]
    orders = epoch_orders(count, local, generator)
    return [batch for order in orders for batch in order.split(local.batch_size)]


def train(
    model: nn.Module,
    sent: Params,
    inputs: Float[Tensor, "n *shape"],
    labels: Int[Tensor, " n"],
    local: LocalTraining,
    *,
    generator: Generator,
    gradient: Gradient | None = None,
    batches: Batches | None = None,
) -> tuple[dict[str, Tensor], Int[Tensor, " uses"]]:
    """Train on one client's examples, as the protocol says.

    Args:
        model: Work space; its weights are overwritten.
        sent: The state the server sent, buffers included.
        inputs: The client's examples.
        labels: Their labels.
        local: Learning rate, momentum, batch size, epochs, what to upload.
        generator: Order of the examples, and the coins of `gradient`.
        gradient: Replaces `batch_gradient` where a defense lives inside training.
        batches: Replaces `shuffled`, for a defense that needs another sampling.

    Returns:
        The state to upload (with `upload="gradient"`: the gradient of one batch in place of the
        trainable parameters), and the position of every example used, one entry per use.
    """
    gradient = gradient or batch_gradient
    state = model.state_dict()  # shares its memory with the model
    _copy(state, sent)
    model.train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    steps = (batches or shuffled)(len(labels), local, generator)

    def at(batch: Tensor) -> Sequence[Tensor]:
        return gradient(model, trained, inputs[batch], labels[batch], local, generator)

    if local.upload == "gradient":
        return _snapshot(state | dict(zip(trained, at(steps[0]), strict=True))), steps[0]
    descend(list(trained.values()), local, steps, at)
    return _snapshot(state), torch.cat(steps)


def load(model: nn.Module, state: Params) -> None:
    """Copy a state into the model, name by name, in the model's dtypes."""
    _copy(model.state_dict(), state)


def _copy(target: Params, source: Params) -> None:
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])


def _snapshot(state: Params) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
