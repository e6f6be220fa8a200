"""A model in float64, whatever types its own code names.

`Module.double` moves parameters and buffers. A state of zeros that a forward makes, a constant
that it keeps, and `x.float()` stay in 32 bits, and the first product of both types fails.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NARROW = (torch.float32, torch.float16, torch.bfloat16)
CASTS = (Tensor.float, Tensor.half, Tensor.bfloat16)


def doubled(model: nn.Module) -> nn.Module:
    """Return a copy of a model that computes in float64."""
    copied = copy.deepcopy(model).double()
    copied.register_forward_pre_hook(_enter, prepend=True)
    copied.register_forward_hook(_leave, always_call=True)
    return copied


class _Widened(TorchFunctionMode):
    """Lets functions of torch take and give float64 where they would take fewer bits."""

    def __init__(self) -> None:
        super().__init__()
        self.default = torch.get_default_dtype()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (Tensor.double if func in CASTS else func)(*_wide(args), **_wide(kwargs or {}))


_ENTERED: list[_Widened] = []  # of forwards that run


def _enter(*_: object) -> None:
    mode = _Widened()
    torch.set_default_dtype(torch.float64)
    mode.__enter__()
    _ENTERED.append(mode)


def _leave(*_: object) -> None:
    mode = _ENTERED.pop()
    mode.__exit__(None, None, None)
    torch.set_default_dtype(mode.default)


def _wide(value: Any) -> Any:
    """Return dtypes and tensors inside a value as float64 ones."""
    if type(value) in (tuple, list):
        return type(value)(_wide(part) for part in value)
    if type(value) is dict:
        return {key: _wide(part) for key, part in value.items()}
    if isinstance(value, Tensor):
        return value.double() if value.dtype in NARROW else value
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value
