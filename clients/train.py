"""Local training: the weights sent and private data in, what is uploaded and the truth out."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from fedsim.sgd import descend, epoch_orders
from fedsim.types import LocalTraining, Params

Gradient = Callable[[nn.Module, Params, Tensor, Tensor, Generator], Sequence[Tensor]]
"""(model, its trainable parameters, inputs, labels, generator) → a gradient per parameter."""


def batch_gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Float[Tensor, "batch *shape"],
    labels: Int[Tensor, " batch"],
    generator: Generator,  # noqa: ARG001
    *,
    label_smoothing: float = 0.0,
) -> Sequence[Tensor]:
    """Return the gradient of the mean cross-entropy over a batch, per trainable parameter."""
    loss = functional.cross_entropy(model(inputs), labels, label_smoothing=label_smoothing)
    return torch.autograd.grad(loss, list(parameters.values()))


def train(
    model: nn.Module,
    sent: Params,
    inputs: Float[Tensor, "n *shape"],
    labels: Int[Tensor, " n"],
    local: LocalTraining,
    *,
    generator: Generator,
    gradient: Gradient | None = None,
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

    Returns:
        The state to upload (with `upload="gradient"`: the gradient of one batch in place of the
        trainable parameters), and the position of every example used, one entry per use.

    Raises:
        ValueError: Labels are to be smoothed, and a defense replaces the gradient.
    """
    if gradient is None:
        gradient = partial(batch_gradient, label_smoothing=local.label_smoothing)
    elif local.label_smoothing:
        raise ValueError("label_smoothing: must be 0 where a defense replaces the gradient")
    state = model.state_dict()  # shares its memory with the model
    _copy(state, sent)
    model.train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if local.upload == "gradient":
        batch = torch.randperm(len(labels), generator=generator)[: local.batch_size]
        gradients = gradient(model, trained, inputs[batch], labels[batch], generator)
        return _snapshot(state | dict(zip(trained, gradients, strict=True))), batch
    orders = epoch_orders(len(labels), local, generator)
    batches = [batch for order in orders for batch in order.split(local.batch_size)]
    descend(
        list(trained.values()), local, batches,
        lambda batch: gradient(model, trained, inputs[batch], labels[batch], generator),
    )  # fmt: skip
    return _snapshot(state), torch.cat(orders)


def load(model: nn.Module, state: Params) -> None:
    """Copy a state into the model, name by name, in the model's dtypes."""
    _copy(model.state_dict(), state)


def _copy(target: Params, source: Params) -> None:
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])


def _snapshot(state: Params) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
