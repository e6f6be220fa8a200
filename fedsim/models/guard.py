"""Around a user's model: it sees copies of inputs, and what it returns becomes logits."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedsim.core.errors import NotApplicable
from fedsim.core.form import PAD


def guarded(
    model: nn.Module,
    dtype: torch.dtype,
    *,
    ids: bool = False,
    per_token: bool = False,
    binary: bool = False,
) -> nn.Module:
    """Return the model, which from now on is called on copies and gives logits.

    Inputs are of the data's type: of whole numbers, attacks try numbers between two of them, too.
    A model of tokens takes ids alone.

    A forward that writes into its input would change the data that all later rounds share. The
    hooks stay with deep copies of the model.

    Logits are taken from a tensor, from `logits` of a mapping or an object (as in transformers and
    torchvision), or from a tuple's only or first tensor. Logits of one example may come without
    the dimension of the batch. Those of a language model come as (examples, tokens, classes), as in
    transformers, and go out with the classes second, as PyTorch's losses take them. A binary model
    may give the second class's logit z alone, as shape (n, 1) or (n,): it becomes (0, z), whose
    cross-entropy is the binary cross-entropy of z.
    """
    whole = not dtype.is_floating_point
    model.register_forward_pre_hook(partial(_copied, whole=whole, ids=ids), prepend=True)
    model.register_forward_hook(partial(_logits, binary=binary))
    if ids and "attention_mask" in inspect.signature(model.forward).parameters:
        model.register_forward_pre_hook(partial(_masked, pairs=_prepared(model)), with_kwargs=True)
    if per_token:
        model.register_forward_hook(_classes_second)
    return model


def _copied(_: nn.Module, arguments: tuple[Any, ...], *, whole: bool, ids: bool) -> tuple[Any, ...]:
    def copied(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if ids and value.is_floating_point():
            raise NotApplicable(f"inputs: must be token ids, got numbers of {value.dtype}")
        return value.long().clone() if whole else value.clone()

    return tuple(map(copied, arguments))


def _prepared(model: nn.Module) -> bool:
    """Let a model of transformers attend in a way that `vmap` takes; is its mask one of pairs?

    Its fused attention, and the encoders' mask of tokens, branch on whether there are pads.
    """
    if not callable(prepare := getattr(model, "set_attn_implementation", None)):
        return False
    prepare("eager")
    return not any(getattr(module, "is_causal", False) for module in model.modules())


def _masked(
    model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], *, pairs: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tell a model, in the manner of transformers, which tokens are no pads.

    Args:
        model: Whose weights say the type of a mask of pairs.
        arguments: The token ids.
        named: Other arguments.
        pairs: Whether the mask is added to the scores of (query, key), shape (b, 1, t, t); else it
            is 1 for each token that is none, shape (b, t).
    """
    present = arguments[0] != PAD
    mask = present.long()
    if pairs:
        dtype = next(model.parameters()).dtype
        scores = (~present[:, None, None, :]).to(dtype) * torch.finfo(dtype).min
        mask = scores.expand(-1, -1, present.shape[1], -1)
    return arguments, {"attention_mask": mask, **named}


def _classes_second(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    return output.transpose(1, 2) if isinstance(output, Tensor) and output.dim() == 3 else output


def _logits(_: nn.Module, arguments: tuple[Any, ...], output: Any, *, binary: bool) -> Any:
    output = _taken_out(output)
    if not isinstance(output, Tensor):
        return output
    count = len(arguments[0])
    if binary and output.shape in ((count, 1), (count,), ()) and output.numel() == count:
        logit = output.reshape(count, 1)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)
    return output.unsqueeze(0) if output.dim() == 1 and count == 1 else output


def _taken_out(output: Any) -> Any:
    """Return the tensor of logits in what a model returns."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return output
