"""Local training: the weights sent and private data in, what is uploaded and the truth out.

It runs where the model is; what comes in and what goes out is on the CPU.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int, Num
from torch import Generator, Tensor, nn

from defenses.defense import Batches, Gradient
from fedsim.core.devices import CPU, device_of, moved, on
from fedsim.core.sgd import descend, mean_gradient, shuffled
from fedsim.core.types import LocalTraining, Params


def train(
    model: nn.Module,
    sent: Params,
    inputs: Num[Tensor, "n *shape"],
    labels: Int[Tensor, "n *target"],
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
        labels: Their labels, or their targets at each position.
        local: Learning rate, momentum, batch size, epochs, what to upload.
        generator: Order of the examples, and the coins of `gradient`.
        gradient: Replaces `mean_gradient` where a defense lives inside training.
        batches: Replaces `shuffled`, for a defense that needs another sampling.

    Returns:
        The state to upload (with `upload="gradient"`: the gradient of one batch in place of the
        trainable parameters), and the position of every example used, one entry per use.
    """
    device, gradient = device_of(model), gradient or mean_gradient
    _copy(model.state_dict(), sent)  # shares its memory with the model
    model.train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    steps = (batches or shuffled)(len(labels), local, generator)
    x, y = moved((inputs, labels), device)

    def at(batch: Tensor) -> Sequence[Tensor]:
        rows = moved(batch, device)
        return gradient(model, trained, x[rows], y[rows], local, generator)

    with on(device):
        if local.upload == "gradient":
            slopes = dict(zip(trained, at(steps[0]), strict=True))
            return _snapshot(model.state_dict() | slopes), steps[0]
        descend(list(trained.values()), local, steps, at)
        # Only now: a forward may put new tensors in the state.
        return _snapshot(model.state_dict()), torch.cat(steps)


def load(model: nn.Module, state: Params) -> None:
    """Copy a state into the model, name by name, in the model's dtypes."""
    _copy(model.state_dict(), state)


def _copy(target: Params, source: Params) -> None:
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])


def _snapshot(state: Params) -> dict[str, Tensor]:
    return {name: value.detach().to(CPU, copy=True) for name, value in state.items()}
