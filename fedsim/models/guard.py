"""Around a user's model: it sees copies of inputs, and what it returns becomes logits."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def guarded(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the model, which from now on is called on copies and gives logits.

    Inputs are of the data's type: of token ids, attacks try numbers between two of them, too.

    A forward that writes into its input would change the data that all later rounds share. The
    hooks stay with deep copies of the model.

    Logits are taken from a tensor, from `logits` of a mapping or an object (as in transformers and
    torchvision), or from a tuple's only or first tensor. Logits of one example may come without
    the dimension of the batch.
    """
    model.register_forward_pre_hook(
        partial(_copied, whole=not dtype.is_floating_point), prepend=True
    )
    model.register_forward_hook(_logits)
    return model


def _copied(_: nn.Module, arguments: tuple[Any, ...], *, whole: bool) -> tuple[Any, ...]:
    def copied(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.long().clone() if whole else value.clone()

    return tuple(map(copied, arguments))


def _logits(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, Tensor):
        squeezed = output.dim() == 1 and len(arguments[0]) == 1
        return output.unsqueeze(0) if squeezed else output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return output
