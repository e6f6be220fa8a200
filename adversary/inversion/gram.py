"""One layer's part of JᵀJ, from the tangents of its input and of the gradient of its output."""

from dataclasses import dataclass
from math import isqrt, prod

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Signals:
    """One layer in one pass: x (k, q, places) and dz (k, out, places), or their tangents."""

    x: Tensor
    dz: Tensor


class View:
    """One layer's gradient, as columns small enough to keep."""

    def __init__(self, module: nn.Module, cap: int, generator: Generator) -> None:
        self.module = module
        self.left: Tensor | None = None
        self.right: Tensor | None = None
        weight = module.weight
        assert isinstance(weight, Tensor)
        out, fan = len(weight), weight[0].numel()
        if isinstance(module, nn.Conv2d) and out * fan > cap:
            a = min(out, max(isqrt(cap), cap // fan))
            b = min(fan, cap // a)
            draw = lambda *shape: torch.randn(*shape, generator=generator).to(weight.dtype)
            self.left, self.right = draw(a, out) / a**0.5, draw(fan, b) / b**0.5

    def reduced(self, at: Signals, tangent: Signals) -> Signals:
        """Return the tangents of (dW, db) of a convolution, or of (x, dz) of a linear layer."""
        if isinstance(self.module, nn.Linear) and at.x.dim() == 2:
            return tangent
        x, moved = self._windows(at.x), self._windows(tangent.x)
        dz, turned = self._places(at.dz), self._places(tangent.dz)
        bias = turned.sum(dim=2)
        if self.left is not None and self.right is not None:
            x, moved = self.right.T @ x, self.right.T @ moved
            dz, turned = self.left @ dz, self.left @ turned
        weight = turned @ x[0].mT + (moved @ dz[0].mT).mT
        return Signals(weight.flatten(1), bias)

    def grams(self, name: str, at: Signals, tangent: Signals) -> list[tuple[str, Tensor]]:
        """Return the part of JᵀJ of each of the layer's parameters."""
        if isinstance(self.module, nn.Linear) and at.x.dim() == 2:
            x, dz = at.x[0].double(), at.dz[0].double()
            tangent = Signals(tangent.x.double(), tangent.dz.double())
            along, across = tangent.dz @ dz, tangent.x @ x
            mixed = torch.outer(along, across)
            weight = mixed + mixed.T
            weight += x.square().sum() * gram(tangent.dz)
            weight += dz.square().sum() * gram(tangent.x)
            bias = tangent.dz
        else:
            weight, bias = gram(tangent.x), tangent.dz
        parts = [(f"{name}.weight", weight)]
        return parts if self.module.bias is None else [*parts, (f"{name}.bias", gram(bias))]

    def _windows(self, x: Tensor) -> Tensor:
        conv = self.module
        if not isinstance(conv, nn.Conv2d):
            return x.reshape(len(x), -1, x.shape[-1]).mT
        return functional.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # type: ignore[arg-type]

    def _places(self, dz: Tensor) -> Tensor:
        if isinstance(self.module, nn.Conv2d):
            return dz.flatten(2)
        return dz.reshape(len(dz), prod(dz.shape[1:-1]), dz.shape[-1]).mT


def gram(rows: Tensor, width: int = 512) -> Tensor:
    """Return rows @ rows.T; half of it is computed."""
    rows = rows.double()
    product = rows.new_empty(len(rows), len(rows))
    for i in range(0, len(rows), width):
        block = rows[i:] @ rows[i : i + width].T
        product[i:, i : i + width] = block
        product[i : i + width, i:] = block.T
    return product
