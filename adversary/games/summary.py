"""What can be read off an upload by itself: norms of its tensors, and means of labels and inputs.

Inputs: L. T. Phong, Y. Aono, T. Hayashi, L. Wang, S. Moriai, "Privacy-preserving deep learning via
additively homomorphic encryption", IEEE TIFS 2018. A unit's weight gradient is its input times its
bias gradient. The units' quotients, weighted by their squared bias gradients, give the input of one
record exactly, and of several a mean. Labels: the head's bias gradient is Σ (p − y) over the
records, B. Zhao, K. Mopuri, H. Bilen, "iDLG", 2020.
"""

from collections.abc import Mapping
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.games.evidence import Evidence
from adversary.projection import Reduce

LARGEST = 1e6  # of a quotient, where a defense leaves next to nothing of the bias


class Summary:
    """Norms, label and input statistics of flat uploads.

    Attributes:
        cells: Columns of the answer.
        norms: How many of them are norms: the first ones, one for each tensor.
    """

    def __init__(
        self, shapes: Mapping[str, torch.Size], classes: int, most: int, generator: Generator
    ) -> None:
        """Find the first layer and the head.

        Args:
            shapes: Of the trained parameters, by name, in `state_dict` order.
            classes: Logits of the head.
            most: Input columns above which they are projected.
            generator: Draws the projection.
        """
        self.sizes = [shape.numel() for shape in shapes.values()]
        self.norms, self.cells = len(shapes), len(shapes)
        ends = zip(shapes, self.sizes, accumulate(self.sizes), strict=True)
        places = {name: slice(end - size, end) for name, size, end in ends}
        self.first = self.head = self.reduce = None
        if not (layers := _biased(shapes)):
            return
        (weight, bias), (_, last) = layers[0], layers[-1]
        self.first = places[weight], places[bias]
        width = shapes[weight][1:].numel()
        if width > most:
            self.reduce = Reduce([width], most, generator)
        self.cells += width if self.reduce is None else self.reduce.cells
        if shapes[last].numel() == classes:
            self.head = places[last]
            self.cells += classes

    def __call__(self, flat: Float[Tensor, "n size"]) -> Float[Tensor, "n cells"]:
        """Return norms, the head's bias gradient, and the inputs' mean of every upload."""
        parts = [part.norm(dim=1, keepdim=True) for part in flat.split(self.sizes, dim=1)]
        if self.head is not None:
            parts.append(flat[:, self.head])
        if self.first is not None:
            weight, bias = (flat[:, place] for place in self.first)
            inputs = mean_input(weight.unflatten(1, (bias.shape[1], -1)), bias)
            parts.append(inputs if self.reduce is None else self.reduce(inputs))
        return torch.cat(parts, dim=1)


def _biased(shapes: Mapping[str, torch.Size]) -> list[tuple[str, str]]:
    """Return the names of weight and bias of every layer that has both, one bias per unit."""
    pairs = [(name, f"{name.removesuffix('weight')}bias") for name in shapes]
    return [
        (weight, bias)
        for weight, bias in pairs
        if weight.endswith("weight") and len(shapes[weight]) > 1
        and shapes.get(bias) == shapes[weight][:1]
    ]  # fmt: skip


class Beside:
    """A projection of flat uploads, or the uploads themselves, with their summary beside it."""

    def __init__(self, reduce: Reduce | None, summary: Summary) -> None:
        self.reduce, self.summary = reduce, summary
        size = sum(summary.sizes) if reduce is None else reduce.cells
        self.cells = size + summary.cells

    def __call__(self, flat: Float[Tensor, "n size"]) -> Float[Tensor, "n cells"]:
        """Return both, side by side."""
        reduced = flat if self.reduce is None else self.reduce(flat)
        return torch.cat([reduced, self.summary(flat)], dim=1)

    def evidence(self, rows: Float[Tensor, "n cells"], batch: int, weight: float) -> Evidence:
        """Return what an adversary has of these uploads, with no record in question."""
        norms, summary = self.summary.norms, self.summary.cells
        uploads, norm, readings = rows.split(
            [rows.shape[1] - summary, norms, summary - norms], dim=1
        )
        return Evidence(uploads, batch, weight, norms=norm, readings=readings)


def mean_input(
    weight: Float[Tensor, "n units features"], bias: Float[Tensor, "n units"]
) -> Float[Tensor, "n features"]:
    """Return the mean of the units' quotients dL/dW / dL/db, weighted by (dL/db)².

    0 where no unit has a bias gradient.

    Args:
        weight: dL/dW of the first layer.
        bias: dL/db.
    """
    tiny = torch.finfo(bias.dtype).tiny
    largest = bias.abs().amax(dim=1, keepdim=True)
    share = bias / largest.clamp(min=tiny)
    total = torch.einsum("nu,nuf->nf", share, weight) / largest.clamp(min=tiny)
    squares = share.square().sum(dim=1, keepdim=True).clamp(min=tiny)
    return (total / squares).clamp(-LARGEST, LARGEST)
