"""Local training as the attacker simulates it: differentiable, of many guesses at once.

What `fedsim.core.sgd.descend` does in place is unrolled here. In which batch an example was used
is not known: in `simulated`, rows of a guess stay in the batch of their place, in every epoch; in
`shared` each step has a share of every example (`adversary.inversion.orders`).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from adversary.inversion.rows import Rows, Statistics
from fedsim.core.examples import flat_rows
from fedsim.core.types import LocalTraining


def smoothed(
    targets: Float[Tensor, "*batch classes"], local: LocalTraining
) -> Float[Tensor, "*batch classes"]:
    """Return what a client makes of its targets: a share of each spread over all classes."""
    share = local.label_smoothing
    return targets * (1 - share) + share / targets.shape[-1] if share else targets


def one_hot(
    labels: Int[Tensor, "*batch"], num_classes: int, dtype: torch.dtype
) -> Float[Tensor, "*batch classes"]:
    """Return labels as probabilities."""
    return functional.one_hot(labels, num_classes).to(dtype)


def batches(count: int, local: LocalTraining) -> list[slice]:
    """Return the rows of each local step; of an uploaded gradient, which is one batch, all."""
    if local.upload == "gradient":
        return [slice(0, count)]
    starts = range(0, count, local.batch_size)
    return [slice(a, min(a + local.batch_size, count)) for a in starts] * local.epochs


def simulated(
    model: Rows,
    inputs: Float[Tensor, "rows batch *shape"],
    targets: Float[Tensor, "rows batch classes"],
    local: LocalTraining,
    *,
    differentiable: bool = True,
    statistics: Statistics | None = None,
) -> list[Tensor]:
    """Return what clients with these examples would upload, (rows, *parameter shape) each.

    Args:
        model: At the weights sent.
        inputs: All examples of a client per row, in the order of use.
        targets: Probabilities of classes, before label smoothing.
        local: The protocol.
        differentiable: Whether what is returned will be differentiated.
        statistics: Filled with those of batch norms in the first step (`Rows.gradients`).

    Returns:
        The gradient, or trained − sent weights.
    """
    targets = smoothed(targets, local)
    steps = [(inputs[:, rows], targets[:, rows]) for rows in batches(inputs.shape[1], local)]
    return _stepped(model, steps, local, statistics, differentiable=differentiable)


def shared(
    model: Rows,
    inputs: Float[Tensor, "rows batch *shape"],
    targets: Float[Tensor, "rows batch classes"],
    shares: Float[Tensor, "rows steps batch"],
    local: LocalTraining,
    *,
    differentiable: bool = True,
) -> list[Tensor]:
    """Return the uploads of clients whose steps use examples by shares.

    The loss of a step is the sum of its examples' losses, each times its share; cross-entropy is
    linear in its targets, so that the model is given these times the share.

    Args:
        model: At the weights sent.
        inputs: All examples of a client per row.
        targets: Probabilities of classes, before label smoothing.
        shares: Of each example in each step; 1 over the size of its batch, or 0, in an order that a
            client can have.
        local: The protocol; uploads are weights.
        differentiable: Whether what is returned will be differentiated.

    Returns:
        Trained − sent weights, (rows, *parameter shape) each.
    """
    targets = smoothed(targets, local) * inputs.shape[1]
    steps = [(inputs, targets * share.unsqueeze(-1)) for share in shares.unbind(1)]
    return _stepped(model, steps, local, None, differentiable=differentiable)


def _stepped(
    model: Rows,
    steps: Sequence[tuple[Tensor, Tensor]],
    local: LocalTraining,
    statistics: Statistics | None,
    *,
    differentiable: bool,
) -> list[Tensor]:
    """Return the uploads after steps on these inputs and targets."""
    (inputs, targets), *others = steps
    gradients = model.gradients(
        inputs, targets, differentiable=differentiable, statistics=statistics
    )
    if local.upload == "gradient":
        return gradients
    velocity = gradients
    moved = [-local.lr * g for g in gradients]
    for inputs, targets in others:
        at = {name: w + m for (name, w), m in zip(model.weights.items(), moved, strict=True)}
        gradients = model.gradients(inputs, targets, at, differentiable=differentiable)
        if local.proximal_mu:  # FedProx: ∇(μ/2·‖w − w_sent‖²)
            gradients = [g + local.proximal_mu * m for g, m in zip(gradients, moved, strict=True)]
        if local.momentum:
            velocity = [local.momentum * v + g for v, g in zip(velocity, gradients, strict=True)]
        else:
            velocity = gradients
        moved = [m - local.lr * v for m, v in zip(moved, velocity, strict=True)]
    return moved


def flat(parts: Sequence[Tensor]) -> Float[Tensor, "rows entries"]:
    """Return parts of (rows, *shape) side by side."""
    return torch.cat([flat_rows(part) for part in parts], dim=1)
