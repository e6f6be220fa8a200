"""What a client's code raises or returns, which may be anybody's: one sentence if it is wrong."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Generator, Tensor, nn

from clients.train import load
from fedsim.audit.batches import Batch, trained_of
from fedsim.core.boundary import boundary
from fedsim.core.errors import RunStopped
from fedsim.core.types import Params

User = Callable[[nn.Module, Tensor, Tensor, Generator], Any]
"""(model, inputs, labels, generator) → the update, name → tensor or one flat tensor."""


def in_a_sentence(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turn whatever a client's code raises into one sentence."""

    @wraps(method)
    def guarded(*args: Any) -> Any:
        with boundary("audited client", "must run", error=RunStopped):
            return method(*args)

    return guarded


def user_upload(
    user: User, model: nn.Module, sent: Params, batch: Batch, coins: Generator
) -> Tensor:
    """Return what a user's own mechanism uploads, flat.

    Raises:
        RunStopped: It raises, or it returns no update of the model.
    """
    load(model, sent)
    model.train()
    with boundary("audit.mechanism", "must return an update", error=RunStopped):
        update = user(model, batch.inputs[batch.present], batch.labels[batch.present], coins)
        flat = flattened(update) if isinstance(update, Mapping) else torch.as_tensor(update)
        flat = flat.flatten()
    size = sum(value.numel() for value in trained_of(model).values())
    if flat.shape != (size,) or not bool(torch.isfinite(flat).all()):
        raise RunStopped(
            f"audit.mechanism: must return {size} finite numbers, one for each trained "
            f"parameter, got {tuple(flat.shape)}"
        )
    return flat.detach()


def flattened(update: Mapping[str, Tensor]) -> Tensor:
    """Return an update as one vector."""
    return torch.cat([value.flatten() for value in update.values()])
