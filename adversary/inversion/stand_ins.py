"""Synthetic pictures, to rehearse with where the adversary has none.

A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images: a statistical study of the
scale-invariant dead leaves model", IJCV 2001: discs of random colours that cover each other, their
radii with density r⁻³. Such pictures have the edges of photographs and about their spectrum,
whose amplitude falls as one over the frequency.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.labels.head import input_shape
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary

PICTURES = 16
LEAVES = 200  # per picture: its area about four times
SMALLEST = 1 / 32  # radius, in lengths of the longer side; the largest is half of it
TINT = 0.1  # standard deviation of a leaf's colours from its brightness


def dead_leaves(
    count: int, shape: tuple[int, int, int], generator: Generator
) -> Float[Tensor, "count channels height width"]:
    """Return pictures of discs, each channel stretched over [0, 1].

    Args:
        count: How many.
        shape: Channels, height and width of one.
        generator: Draws places, radii and colours.
    """
    channels, height, width = shape
    side = max(height, width)
    draw = lambda *size: torch.rand(count, *size, generator=generator)
    rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    pictures = draw(channels, 1, 1).expand(-1, -1, height, width)
    spread = 1 - (2 * SMALLEST) ** 2
    for _ in range(LEAVES):
        radius = side * SMALLEST / (1 - spread * draw(1, 1)).sqrt()
        away = (rows - height * draw(1, 1)).square() + (columns - width * draw(1, 1)).square()
        cover = (radius - away.sqrt() + 0.5).clamp(0, 1).unsqueeze(1)  # edges as wide as a pixel
        tint = TINT * torch.randn(count, channels, 1, 1, generator=generator)
        colour = (draw(1, 1, 1) + tint).clamp(0, 1)
        pictures = pictures + cover * (colour - pictures)
    low, high = (edge(pictures, dim=(0, 2, 3), keepdim=True) for edge in (torch.amin, torch.amax))
    return (pictures - low) / (high - low).clamp(min=torch.finfo(pictures.dtype).eps)


def with_stand_ins(auxiliary: Auxiliary) -> Auxiliary:
    """Return the adversary with labels drawn for its pictures, synthetic ones if it has none."""
    inputs = auxiliary.inputs
    if inputs is None or not len(inputs):
        channels, height, width = input_shape(auxiliary)
        inputs = dead_leaves(PICTURES, (channels, height, width), derived(0, "dead leaves"))
    coins = derived(0, "labels of stand-ins")
    labels = torch.randint(auxiliary.num_classes, (len(inputs),), generator=coins)
    return replace(auxiliary, inputs=inputs, labels=labels)


def lacking(auxiliary: Auxiliary) -> str:
    """Return what stands in for labelled examples; empty where there are some."""
    inputs, labels = auxiliary.inputs, auxiliary.labels
    if inputs is None or not len(inputs):
        return "synthetic pictures"
    return "auxiliary pictures and drawn labels" if labels is None or not len(labels) else ""
