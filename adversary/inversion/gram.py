"""One layer's part of JᵀJ, from the tangents of its input and of the gradient of its output."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from adversary.inversion.chain import zeros_around

CONVS = (nn.Conv1d, nn.Conv2d)
TRAILING = (nn.LayerNorm, nn.RMSNorm)  # their weights belong to the last dimensions
AFFINE = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    *TRAILING,
)


@dataclass(frozen=True, eq=False)
class Signals:
    """One layer in one pass: x (k, q, places) and dz (k, out, places), or their tangents.

    Of a normalisation x is what it multiplies by its weight.
    """

    x: Tensor
    dz: Tensor


class View:
    """One layer's gradient, as columns small enough to keep."""

    def __init__(
        self, module: nn.Module, names: Sequence[str], cap: int, generator: Generator
    ) -> None:
        self.module, self.names = module, names
        self.left: Tensor | None = None
        self.right: Tensor | None = None
        weight = module.weight
        assert isinstance(weight, Tensor)
        out, fan = len(weight), weight[0].numel()
        if isinstance(module, CONVS) and module.groups == 1 and out * fan > cap:
            a = min(out, max(isqrt(cap), cap // fan))
            b = min(fan, cap // a)
            draw = lambda *shape: torch.randn(*shape, generator=generator).to(weight.dtype)
            self.left, self.right = draw(a, out) / a**0.5, draw(fan, b) / b**0.5

    def reduced(self, at: Signals, tangent: Signals) -> Signals:
        """Return the tangents of (dW, db), or of (x, dz) of a linear layer that is called once."""
        if isinstance(self.module, nn.Linear) and at.x.dim() == 2:
            return tangent
        if isinstance(self.module, AFFINE):
            weight = self._summed(tangent.dz * at.x + at.dz * tangent.x)
            return Signals(weight, self._summed(tangent.dz))
        x, moved = self._windows(at.x), self._windows(tangent.x)
        dz, turned = self._places(at.dz), self._places(tangent.dz)
        bias = turned.sum(dim=-1).flatten(1)
        if self.left is not None and self.right is not None:
            x, moved = self.right.T @ x, self.right.T @ moved
            dz, turned = self.left @ dz, self.left @ turned
        weight = turned @ x[0].mT + (moved @ dz[0].mT).mT
        return Signals(weight.flatten(1), bias)

    def grams(self, at: Signals, tangent: Signals) -> list[tuple[str, Tensor]]:
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
        parts = [weight] if getattr(self.module, "bias", None) is None else [weight, gram(bias)]
        return list(zip(self.names, parts, strict=True))

    def _windows(self, x: Tensor) -> Tensor:
        """Return what each place of the output sees, (k, groups, fan, places)."""
        conv = self.module
        if not isinstance(conv, CONVS):
            return x.reshape(len(x), 1, -1, x.shape[-1]).mT
        zeros = zeros_around(conv)
        assert zeros is not None
        lines = isinstance(conv, nn.Conv1d)
        window = [
            ((fill, *value) if lines else value)
            for fill, value in zip(
                (1, 1, 0, 1), (conv.kernel_size, conv.dilation, zeros, conv.stride), strict=True
            )
        ]
        places = functional.unfold(x.unsqueeze(2) if lines else x, *window)  # type: ignore[arg-type]
        return places.unflatten(1, (conv.groups, -1))

    def _places(self, dz: Tensor) -> Tensor:
        """Return slopes, (k, groups, out of each, places)."""
        if isinstance(self.module, CONVS):
            return dz.flatten(2).unflatten(1, (self.module.groups, -1))
        return dz.reshape(len(dz), 1, prod(dz.shape[1:-1]), dz.shape[-1]).mT

    def _summed(self, values: Tensor) -> Tensor:
        """Return each copy's sum over all places that share a weight, (k, weights)."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        if isinstance(self.module, TRAILING):
            return values.reshape(len(values), -1, weight.numel()).sum(dim=1)
        return values.flatten(2).sum(dim=2) if values.dim() > 2 else values


def normalised(module: nn.Module, out: Tensor) -> Tensor:
    """Return what an affine normalisation multiplies by its weight, from its output."""
    weight, bias = module.weight, getattr(module, "bias", None)
    assert isinstance(weight, Tensor)
    axes = () if isinstance(module, TRAILING) else (1,) * (out.dim() - 2)
    shape = (*weight.shape, *axes)
    return (out if bias is None else out - bias.view(shape)) / weight.view(shape)


def gram(rows: Tensor, width: int = 512) -> Tensor:
    """Return rows @ rows.T; half of it is computed."""
    rows = rows.double()
    product = rows.new_empty(len(rows), len(rows))
    for i in range(0, len(rows), width):
        block = rows[i:] @ rows[i : i + width].T
        product[i:, i : i + width] = block
        product[i : i + width, i:] = block.T
    return product
