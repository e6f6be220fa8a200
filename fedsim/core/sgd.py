"""Local steps: what the protocol tells every client to do, and every server to expect."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from fedsim.core.form import IGNORED
from fedsim.core.types import LocalTraining, Params

ALL = slice(None)
BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam: the paper's, and PyTorch's
DECAY = 0.01  # of AdamW: PyTorch's


class Descent:
    """Steps on parameters in place, by what `local` says; momentum and moments start at 0.

    By hand, because `torch.optim` imports a compiler that costs every process 4 CPU-seconds. Adam:
    D. Kingma, J. Ba, ICLR 2015, algorithm 1; AdamW: I. Loshchilov, F. Hutter, "Decoupled weight
    decay regularization", ICLR 2019, algorithm 2, with PyTorch's defaults.

    Args:
        parameters: What training moves; of several clients at once, a row for each client.
        local: Optimizer, learning rate, momentum and FedProx's pull.
    """

    def __init__(self, parameters: Sequence[Tensor], local: LocalTraining) -> None:
        self._parameters, self._local = list(parameters), local
        anchored = self._parameters if local.proximal_mu else []
        self._anchor = [value.detach().clone() for value in anchored]
        adam = local.optimizer != "sgd"
        moving = self._parameters if local.momentum or adam else []
        self._velocity = [torch.zeros_like(value) for value in moving]
        self._squares = [torch.zeros_like(value) for value in moving if adam]

    def step(self, gradients: Sequence[Tensor], rows: slice = ALL, *, before: int) -> None:
        """Take one step.

        Args:
            gradients: The loss's, at the parameters as they are.
            rows: Of several clients, which ones move; the others stay.
            before: How many steps these have taken.
        """
        local, moving = self._local, list(gradients)
        parts = (self._parameters, self._anchor, self._velocity, self._squares)
        if rows != ALL:
            parts = tuple([value[rows] for value in part] for part in parts)
        parameters, anchor, velocity, squares = parts
        with torch.no_grad():
            if anchor:  # FedProx: ∇(μ/2·‖w − w_sent‖²)
                pull = torch._foreach_sub(parameters, anchor)
                moving = [*torch._foreach_add(moving, pull, alpha=local.proximal_mu)]
            if squares:
                if local.optimizer == "adamw":
                    torch._foreach_mul_(parameters, 1 - local.lr * DECAY)
                _adam(parameters, moving, velocity, squares, local.lr, before + 1)
                return
            if velocity:
                torch._foreach_mul_(velocity, local.momentum)
                torch._foreach_add_(velocity, moving)
            torch._foreach_add_(parameters, velocity or moving, alpha=-local.lr)


def _adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    lr: float,
    step: int,
) -> None:
    """Take Adam's step number `step` in place: parameters, and the moments of their gradients."""
    first, second = BETAS
    torch._foreach_lerp_(means, gradients, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
    sizes = torch._foreach_sqrt(squares)
    torch._foreach_div_(sizes, (1 - second**step) ** 0.5)
    torch._foreach_add_(sizes, EPS)
    torch._foreach_addcdiv_(parameters, means, sizes, -lr / (1 - first**step))


def descend(
    parameters: Sequence[Tensor],
    local: LocalTraining,
    batches: Iterable[Tensor],
    gradient: Callable[[Tensor], Sequence[Tensor]],
) -> None:
    """Take one step per batch, in place; momentum and moments start at 0.

    Args:
        parameters: What training moves.
        local: Optimizer, learning rate, momentum and FedProx's pull.
        batches: Positions of the examples of each step.
        gradient: Batch → the loss's gradient at the parameters as they are.
    """
    descent = Descent(parameters, local)
    for number, batch in enumerate(batches):
        descent.step(gradient(batch), before=number)


def mean_gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Tensor,
    labels: Tensor,
    local: LocalTraining,
    generator: Generator,  # noqa: ARG001
) -> tuple[Tensor, ...]:
    """Return the gradient of the mean cross-entropy over a batch, per trainable parameter."""
    logits = model(inputs)
    if labels.ndim > 1:  # a row per token: with the classes last the loss is twice as fast
        logits, labels = logits.transpose(1, 2).flatten(0, 1), labels.flatten()
    loss = functional.cross_entropy(logits, labels, label_smoothing=local.label_smoothing)
    return gradients(loss, parameters)


def example_losses(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """Return the cross-entropy of each example; of a text, the mean over its targets.

    Args:
        logits: Shape (batch, classes), or (batch, classes, tokens).
        labels: Shape (batch,), or (batch, tokens) with −100 where there is no target.
        label_smoothing: Of the loss.
    """
    losses = functional.cross_entropy(
        logits, labels, label_smoothing=label_smoothing, reduction="none"
    )
    return losses if labels.ndim == 1 else losses.sum(dim=1) / (labels != IGNORED).sum(dim=1)


def gradients(loss: Tensor, parameters: Params, *, keep: bool = False) -> tuple[Tensor, ...]:
    """Return the gradient of a loss at each parameter, dense; zero where the loss does not use it.

    PyTorch's SGD and Adam treat a parameter that has no gradient in the same way. Its AdamW leaves
    such a parameter alone, and ours decays it.

    Args:
        loss: One number.
        parameters: Those to take gradients at.
        keep: Whether the graph is used again.
    """
    values = list(parameters.values())
    if not values or not loss.requires_grad:
        return tuple(torch.zeros_like(value) for value in values)
    slopes = torch.autograd.grad(
        loss, values, retain_graph=keep, allow_unused=True, materialize_grads=True
    )
    return tuple(slope.to_dense() if slope.is_sparse else slope for slope in slopes)


def shuffled(count: int, local: LocalTraining, generator: Generator) -> list[Tensor]:
    """Return the positions of each step's examples: every one once an epoch, in a new order.

    For an uploaded gradient it is one batch.
    """
    if local.upload == "gradient":
        return [torch.randperm(count, generator=generator)[: local.batch_size]]
    orders = [torch.randperm(count, generator=generator) for _ in range(local.epochs)]
    return [batch for order in orders for batch in order.split(local.batch_size)]
