"""How much of a layer's input its linear system determines: ranks in closed form.

Walking back, the input x of a convolution z = W∗x solves a linear system: weight constraints
W∗x = z, one row per output, and gradient constraints x∗dz = dW, one per weight. Its rank follows
from the shapes alone, for weights and gradients in general position; no matrix is formed.

Per output channel o and o': ⟨dW_o, W_o'⟩ = ⟨dz_o, z_o'⟩, so that each pair costs one row. A bias
moves z and adds nothing that holds x: its own gradient is a sum of dz.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from adversary.inversion.chain import Layer, zeros_around

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class System:
    """The linear system of one layer's input.

    Attributes:
        name: Of the layer, as in `named_modules`.
        kind: "conv" or "linear".
        rows: Equations.
        unknowns: Numbers of the input.
        rank: How many of them the equations determine, in general position.
        dead: Numbers that no window of the convolution covers.
        note: What the numbers do not say; empty without.
    """

    name: str
    kind: str
    rows: int
    unknowns: int
    rank: int
    dead: int = 0
    note: str = ""

    @property
    def deficiency(self) -> int:
        """How many directions of the input stay hidden."""
        return self.unknowns - self.rank


@dataclass(frozen=True)
class _Class:
    """Pixels whose places have the same remainder by the stride; a tap only ever sees one class."""

    pixels: int
    taps: int


def systems(layers: Sequence[Layer]) -> list[System]:
    """Return the system of every convolution and linear layer of a chain, from the input on.

    Args:
        layers: Of `adversary.inversion.chain.chain`.
    """
    weighted = [layer for layer in layers if layer.kind in ("conv", "linear")]
    return [
        system(layer.name, layer.module, layer.shape, layer.out, head=layer is weighted[-1])
        for layer in weighted
    ]


def system(name: str, module: nn.Module, shape: Shape, out: Shape, *, head: bool) -> System:
    """Return the system of one convolution or linear layer.

    Args:
        name: Of the layer.
        module: `Conv2d` with as many zeros on either side of an axis, or `Linear`.
        shape: Of its input, without the batch.
        out: Of its output.
        head: Whether its output is the logits: then dL/dz is not known from a layer above.

    Raises:
        ValueError: It is another layer, or has another padding.
    """
    if isinstance(module, nn.Linear):
        return _linear(name, module, shape, head=head)
    what = f"{name} = {type(module).__name__}"
    if not isinstance(module, nn.Conv2d):
        raise ValueError(f"{what}: must be Conv2d or Linear")
    if zeros_around(module) is None:
        raise ValueError(f"{what}: must have as many zeros on either side")
    unknowns, places = prod(shape), out[1] * out[2]
    fan_in, fan_out = module.in_channels // module.groups, module.out_channels // module.groups
    classes, outputs = _classes(module, shape, out)
    covered = sum(c.pixels for c in classes)
    rank = module.groups * _rank(classes, outputs, fan_in, fan_out)
    rows = module.out_channels * places + module.weight.numel()
    dead = unknowns - covered * module.in_channels
    return System(name=name, kind="conv", rows=rows, unknowns=unknowns, rank=rank, dead=dead)


def metric(systems: Sequence[System]) -> float:
    """Return c(M) = Σᵢ (d−(i−1))/d · (rank(Aᵢ) − nᵢ) over the d convolutions of a chain; ≤ 0.

    Source: Chen and Campbell, arXiv 2111.10178; code of "Analysing Training-Data Leakage from
    Gradients through Linear Systems and Gradient Matching", BMVC 2022.
    """
    convs = [conv for conv in systems if conv.kind == "conv"]
    depth = len(convs)
    return sum((depth - i) / depth * (conv.rank - conv.unknowns) for i, conv in enumerate(convs))


def _linear(name: str, module: nn.Linear, shape: Shape, *, head: bool) -> System:
    """A linear layer: dW = dz xᵀ, with dz known from the bias or from above, holds all of x."""
    unknowns = prod(shape)
    if module.bias is None and head:
        note = "up to one factor, which the softmax decides"
        return System(
            name=name,
            kind="linear",
            rows=module.weight.numel(),
            unknowns=unknowns,
            rank=unknowns - 1,
            note=note,
        )
    rows = module.weight.numel() + (module.out_features if not head else 0)
    return System(name=name, kind="linear", rows=rows, unknowns=unknowns, rank=unknowns)


def _rank(classes: Sequence[_Class], outputs: int, fan_in: int, fan_out: int) -> int:
    """Return the rank of one group's system: the least of its bounds.

    The columns of any classes of pixels may count in full, where gradient constraints determine
    them; on the others' columns there are R_w = min(C_out, taps·C_in) different filters at every
    place and R_d = min(C_out, places) different gradients per tap, of which R_w·R_d rows repeat
    others. With few channels and one class this is C_out·h·w + C_out·C_in·k² − C_out².
    """
    slopes = min(fan_out, outputs)
    order = sorted(classes, key=lambda c: c.pixels - slopes * c.taps)
    bounds = []
    for determined in range(len(order) + 1):
        weights = fan_in * sum(c.taps for c in order[determined:])
        filters = min(fan_out, weights)
        rows = filters * outputs + slopes * weights - filters * slopes
        bounds.append(fan_in * sum(c.pixels for c in order[:determined]) + rows)
    return min(bounds)


def _classes(module: nn.Conv2d, shape: Shape, out: Shape) -> tuple[list[_Class], int]:
    """Return the classes of covered pixels of one channel, and how many outputs see any."""
    axes = [_axis(module, axis, shape[1 + axis], out[1 + axis]) for axis in (0, 1)]
    (high, tall), (wide, broad) = axes
    classes = [_Class(a.pixels * b.pixels, a.taps * b.taps) for a in high for b in wide]
    return classes, tall * broad


def _axis(module: nn.Conv2d, axis: int, size: int, out: int) -> tuple[list[_Class], int]:
    """Return the classes along one axis, and how many places of the output see a pixel."""
    zeros = zeros_around(module)
    assert zeros is not None
    padding = zeros[axis]
    stride, taps = module.stride[axis], torch.arange(module.kernel_size[axis])
    offset = taps * module.dilation[axis] - padding
    pixel: Tensor = torch.arange(out).unsqueeze(1) * stride + offset
    inside = (pixel >= 0) & (pixel < size)
    classes = []
    for remainder in (offset % stride).unique():
        class_taps = (offset % stride == remainder) & inside.any(dim=0)
        pixels = len(pixel[:, class_taps][inside[:, class_taps]].unique())
        if pixels:
            classes.append(_Class(pixels, int(class_taps.sum())))
    return classes, int(inside.any(dim=1).sum())
