"""One layer's part of JᵀJ, from the tangents of its input and of the gradient of its output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from adversary.inversion.chain import zeros_around

CONVS = (nn.Conv1d, nn.Conv2d)
EXACT = 12  # columns per input number up to which the gradient of all convolutions is kept
ROOM = 2**30  # numbers: of linear layers on places, up to which no projection is drawn
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
    """One layer's gradient, as columns small enough to keep.

    Args:
        module: The layer.
        names: Of its parameters.
        cap: Entries of the weight's gradient; of more, a random projection is kept.
        places: How many places of a linear layer's input share its weight.
        generator: Draws the projection.
    """

    def __init__(
        self, module: nn.Module, names: Sequence[str], cap: int, places: int, generator: Generator
    ) -> None:
        self.module, self.names = module, names
        self.left: Tensor | None = None
        self.right: Tensor | None = None
        weight = module.weight
        assert isinstance(weight, Tensor)
        out, fan = _sides(module)
        if cap < kept(module, places) and (isinstance(module, nn.Linear) or _ungrouped(module)):
            a = min(out, max(isqrt(cap), cap // fan))
            b = min(fan, max(cap // a, 1))
            draw = lambda *shape: torch.randn(*shape, generator=generator).to(weight.dtype)
            self.left, self.right = draw(a, out) / a**0.5, draw(fan, b) / b**0.5
        self.factored = self.left is None and kept(module, places) < out * fan

    def reduced(self, at: Signals, tangent: Signals) -> Signals:
        """Return the tangents of (dW, db), or of (x, dz) where these are fewer numbers."""
        if self.factored:
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
        if self.factored:
            weight = _factored(*(it.flatten(1, -2) if it.dim() > 2 else it.unsqueeze(1)
                                 for it in (at.x, at.dz, tangent.x, tangent.dz)))  # fmt: skip
            bias = tangent.dz.flatten(1, -2).sum(dim=1) if tangent.dz.dim() > 2 else tangent.dz
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


def kept(module: nn.Module, places: int) -> int:
    """Return how many numbers of one tangent of a layer's weight are kept, without a projection.

    The gradient of a linear layer is Σ dz xᵀ over places: of few places x and dz are fewer numbers.
    """
    out, fan = _sides(module)
    return min(out * fan, places * (out + fan)) if isinstance(module, nn.Linear) else out * fan


def _sides(module: nn.Module) -> tuple[int, int]:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return len(weight), weight[0].numel()


def _ungrouped(module: nn.Module) -> bool:
    return isinstance(module, CONVS) and module.groups == 1


def _factored(x: Tensor, dz: Tensor, moved: Tensor, turned: Tensor) -> Tensor:
    """Return the products of all pairs of tangents of Σ dz xᵀ over places, without forming one.

    ⟨dZ'ₖᵀX + dZᵀX'ₖ, dZ'ₗᵀX + dZᵀX'ₗ⟩, where the square root of XXᵀ and of dZdZᵀ have a row for
    each place, and what is mixed has one number for each pair of places.

    Args:
        x: Inputs, shape (1, places, fan).
        dz: Slopes of the outputs, shape (1, places, out).
        moved: Tangents of x, shape (k, places, fan).
        turned: Tangents of dz, shape (k, places, out).
    """
    x, dz, moved, turned = x[0].double(), dz[0].double(), moved.double(), turned.double()
    across, along = moved @ x.T, turned @ dz.T
    mixed = along.flatten(1) @ across.mT.flatten(1).T
    total = mixed + mixed.T
    total += gram((_root(x) @ turned).flatten(1))
    total += gram((_root(dz) @ moved).flatten(1))
    return total


def _root(rows: Tensor) -> Tensor:
    """Return R with RᵀR = rows·rowsᵀ, without the rows of R that are 0 to rounding."""
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    large = values > values[-1] * torch.finfo(values.dtype).eps
    return vectors[:, large].T * values[large].sqrt().unsqueeze(1)


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


def rows_of(
    layers: Mapping[str, nn.Module], places: Mapping[str, int], size: int, probed: int
) -> dict[str, int]:
    """Return how many numbers of each layer's gradient are kept (`View`).

    All of them, or most of the first layers: what pooling hides from the later ones, only these
    can tell.

    Args:
        layers: By name, in order.
        places: How many of a linear layer's input share its weight.
        size: Numbers of the input.
        probed: Number of directions.
    """
    convs = {n: m.weight.numel() for n, m in layers.items() if isinstance(m, CONVS)}
    plain = {n: kept(m, places[n]) for n, m in layers.items() if isinstance(m, nn.Linear)}
    rows = {name: plain.get(name, 0) for name in layers}
    if sum(convs.values()) > EXACT * size:
        rows |= _shares(list(convs), size)
    else:
        rows |= convs
    on_places = [name for name in plain if places[name] > 1]
    if sum(plain[name] for name in on_places) * probed > ROOM:
        rows |= _shares(on_places, size)
    return rows


def _shares(names: Sequence[str], size: int) -> dict[str, int]:
    """Return numbers that add up to about EXACT per number of the input, fewer of later layers."""
    third = EXACT * size // 3
    return {name: max(third // 2**i, third // len(names), 1) for i, name in enumerate(names)}
