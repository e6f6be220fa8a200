"""Local SGD: what the protocol tells every client to do, and every server to expect."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Generator, Tensor

from fedsim.types import LocalTraining


def descend(
    parameters: Sequence[Tensor],
    local: LocalTraining,
    batches: Iterable[Tensor],
    gradient: Callable[[Tensor], Sequence[Tensor]],
) -> None:
    """Take one step per batch, in place; momentum starts from rest.

    By hand, because `torch.optim` imports a compiler that costs every process 4 CPU-seconds.

    Args:
        parameters: What training moves.
        local: Learning rate, momentum and FedProx's pull.
        batches: Positions of the examples of each step.
        gradient: Batch → the loss's gradient at the parameters as they are.
    """
    anchor = [value.detach().clone() for value in parameters] if local.proximal_mu else []
    velocity = [torch.zeros_like(value) for value in parameters] if local.momentum else []
    for batch in batches:
        gradients = list(gradient(batch))
        with torch.no_grad():
            if anchor:  # FedProx: ∇(μ/2·‖w − w_sent‖²)
                pull = torch._foreach_sub(list(parameters), anchor)
                gradients = torch._foreach_add(gradients, pull, alpha=local.proximal_mu)
            if velocity:
                torch._foreach_mul_(velocity, local.momentum)
                torch._foreach_add_(velocity, gradients)
            torch._foreach_add_(list(parameters), velocity or gradients, alpha=-local.lr)


def epoch_orders(count: int, local: LocalTraining, generator: Generator) -> list[Tensor]:
    """Return a new order of a client's examples for every epoch."""
    return [torch.randperm(count, generator=generator) for _ in range(local.epochs)]
