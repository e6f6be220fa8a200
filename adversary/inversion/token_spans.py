"""Which inputs of a transformer's layers an update leaves possible: those in its gradients' spans.

The gradient of a linear layer is ΔᵀU with a row of U per token and example, so that its row space
holds every input of every example, and no label is needed to read it (for texts: I. Petrov et al.,
"DAGER: exact gradient inversion for large language models", NeurIPS 2024). Where a batch has fewer
tokens than the layer has inputs, what lies outside that space is a set of equations for each
example by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adversary.inversion.patches import pixels_of
from adversary.inversion.token_readers import Reader, Shape, readers_of, rows_of
from adversary.labels.head import input_shape
from adversary.workspace import randomise
from fedsim.core.doubled import doubled
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary

FEWEST = 8  # dimensions outside a span that are worth the layer's evaluation
RESOLVED = 3e-8  # of the first singular value: below lies the rounding of a float32 gradient
SHARE = 0.9  # of a span's directions that must be above rounding
NOISE = 1.4  # times the first singular value beyond a span is above rounding, too
LAYERS = 4  # whose spans count, from the first on
SAME = 1e-9  # relative difference of tokens that is rounding
AFTER = 2  # the layer before which a first attention has mixed tokens


@dataclass(frozen=True, eq=False)
class Structure:
    """How a model takes pictures apart.

    Attributes:
        readers: Layers that take a row per token, in the order of their calls.
        pixels: Which numbers of a picture each patch has.
        sizes: Inputs and outputs of each reader.
    """

    readers: tuple[Reader, ...]
    pixels: Int[Tensor, "patches size"]
    sizes: tuple[tuple[int, int], ...]

    def usable(self, count: int) -> list[Reader]:
        """Return the layers whose spans so many examples do not fill."""
        return [
            reader
            for reader, (width, out) in zip(self.readers, self.sizes, strict=True)
            if reader.rank(count) <= min(width - FEWEST, out)
        ]

    def refusal(self, count: int) -> str:
        """Return why no layer is usable."""
        tokens = max(reader.rank(1) for reader in self.readers)
        width = max(min(width - FEWEST, out) for width, out in self.sizes)
        return (
            f"num_examples: must leave tokens of all examples within {width}, of which layers' "
            f"spans have room, got {count} × {tokens}"
        )


def structure_of(auxiliary: Auxiliary) -> Structure:
    """Return how a model takes pictures apart.

    Raises:
        NotApplicable: It takes no pictures in patches that do not overlap, does not tell their
            places apart, or has no trained layer that takes a row for each token.
    """
    model, shape = auxiliary.model, input_shape(auxiliary)
    if len(shape) != 3:
        raise NotApplicable(f"inputs: must be pictures of patches, got shape {tuple(shape)}")
    pixels = pixels_of(model, shape)
    if len(pixels) < 2:
        raise NotApplicable(
            f"patches: the model must take a picture in 2 or more, got {len(pixels)}"
        )
    readers = tuple(it for it in readers_of(model, shape) if it.rank(1) >= len(pixels))
    if not readers:
        raise NotApplicable("spans: a trained linear layer must take a row per patch, got none")
    if _unplaced(model, shape, pixels, readers):
        raise NotApplicable("positions: the model must tell places of patches apart, got none")
    parameters = dict(model.named_parameters())
    sizes = [_sizes([parameters[name] for name in reader.weights]) for reader in readers]
    return Structure(readers, pixels, tuple(sizes))


def _sizes(weights: Sequence[Tensor]) -> tuple[int, int]:
    return weights[0].flatten(1).shape[1], sum(len(weight) for weight in weights)


def _unplaced(
    model: nn.Module,
    shape: Shape,
    pixels: Int[Tensor, "patches size"],
    readers: tuple[Reader, ...],
) -> bool:
    """Return whether tokens after an attention only change places where patches do."""
    copied = doubled(model).eval()
    randomise(copied, generator(0, "token spans", "weights"))
    size = torch.Size(shape).numel()
    flat = torch.rand(1, size, generator=generator(0, "places"), dtype=torch.float64).repeat(2, 1)
    flat[1, pixels] = flat[0, pixels.roll(1, 0)]
    reader = readers[min(AFTER, len(readers) - 1)]
    with torch.no_grad():
        first, second = rows_of(copied, [reader], flat.unflatten(1, shape))[reader.module]
    apart = torch.cdist(second, first).amin(dim=1)
    return float(apart.max()) <= SAME * float(first.norm(dim=1).max())


@dataclass(frozen=True, eq=False)
class Outside:
    """The directions that no input of a layer has a part in.

    Attributes:
        reader: The layer.
        basis: Orthonormal rows.
    """

    reader: Reader
    basis: Float[Tensor, "k width"]


def outsides(readers: Sequence[Reader], gradient: dict[str, Tensor], count: int) -> list[Outside]:
    """Return the equations of the first layers whose spans stand out of rounding.

    Args:
        readers: Whose spans the batch does not fill.
        gradient: By name, float64.
        count: Examples.
    """
    said: list[Outside] = []
    for reader in readers:
        weight = torch.cat([gradient[name].flatten(1) for name in reader.weights])
        rank = reader.rank(count)
        _, values, basis = torch.linalg.svd(weight, full_matrices=True)
        beyond = float(values[rank]) if rank < len(values) else 0.0
        edge = max(RESOLVED * float(values[0]), NOISE * beyond)
        if float(values[max(0, int(SHARE * rank) - 1)]) > edge:
            said.append(Outside(reader, basis[rank:]))
        if len(said) == LAYERS:
            break
    return said
