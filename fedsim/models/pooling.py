"""Pooling of the largest of 2×2 values, in less than half of PyTorch's time on a CPU.

In: what a model gives `max_pool2d` while clients train together. Out: the same values, and the same
place of each (the first in reading order where values tie), so that gradients are the same.
PyTorch's loop takes a branch for each value; here rows and columns are compared as a whole.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_NAMES = (torch.max_pool2d, functional.max_pool2d)
_SIZE = (2, 2)
_DTYPES = (torch.float32, torch.float64)


class FastPooling(TorchFunctionMode):
    """Inside the block, `max_pool2d` over 2×2 values that do not overlap takes the faster way."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        pooled = _pooled(*args, **options) if func in _NAMES else None
        return func(*args, **options) if pooled is None else pooled


def _pooled(  # noqa: PLR0917, as PyTorch's own
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    """Return the largest of 2×2 values beside each other; None where that is not what is asked."""
    neighbours = _pair(kernel_size) == _pair(stride or kernel_size) == _SIZE
    plain = _pair(padding) == (0, 0) and _pair(dilation) == (1, 1)
    if not (neighbours and plain) or ceil_mode or return_indices:
        return None
    here = input.dtype in _DTYPES and input.device.type == "cpu"
    if not here or input.ndim < 3 or min(input.shape[-2:]) < max(_SIZE):
        return None
    return _Pooled.apply(input)[0]  # pyright: ignore[reportOptionalSubscript]


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


class _Pooled(Function):
    """The largest of each 2×2 values, and its place among those of its image."""

    @staticmethod
    def forward(values: Tensor) -> tuple[Tensor, Tensor]:
        return _largest(values)

    @staticmethod
    def setup_context(
        ctx: FunctionCtx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.shape = inputs[0].shape  # pyright: ignore[reportAttributeAccessIssue]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        images = slopes[0].new_zeros(ctx.shape).flatten(0, -3).flatten(-2)
        images.scatter_(-1, places.flatten(0, -3).flatten(-2), slopes[0].flatten(0, -3).flatten(-2))
        return images.view(ctx.shape)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], *values: Tensor) -> tuple[Any, tuple[int, int]]:  # noqa: ARG004
        return _Pooled.apply(values[0].movedim(in_dims[0], 0)), (0, 0)


def _largest(
    values: Float[Tensor, "*n height width"],
) -> tuple[Float[Tensor, "*n h w"], Int[Tensor, "*n h w"]]:
    """Return the largest of each 2×2 values; with their places, rows one after the other.

    A last row or column that has no neighbour is left out.
    """
    high, wide = (size // 2 for size in values.shape[-2:])
    whole = values[..., : 2 * high, : 2 * wide]
    left, right = whole[..., ::2], whole[..., 1::2]
    across, later = torch.maximum(left, right), (right > left).to(torch.uint8)
    above, below = across[..., ::2, :], across[..., 1::2, :]
    lower = (below > above).to(torch.uint8)
    upper = later[..., ::2, :]
    column = upper + lower * (later[..., 1::2, :] - upper)  # modulo 256, as it should be
    width = values.shape[-1]
    rows = torch.arange(high, dtype=torch.int32).unsqueeze(1) * (2 * width)
    corner = rows + torch.arange(wide, dtype=torch.int32) * 2
    place = lower.to(torch.int32).mul_(width).add_(column).add_(corner)
    return torch.maximum(above, below), place.long()
