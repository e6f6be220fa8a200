"""What pictures are like, without any: smoothness, agreement among guesses, generators.

A prior is a penalty on guesses, or what guesses are written as: their pixels, the weights of an
untrained generator, or the latent inputs of a trained one. Guesses are (rows, batch, *shape).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from adversary.inversion.rows import forward_rows
from adversary.labels.head import input_shape
from fedsim.core.catalog import find
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary

Images = Float[Tensor, "rows batch *shape"]
Start = Literal["grey", "uniform", "normal"]
NEAR = 0.05  # distance from grey of a start, in ranges of the data
WIDTH, LATENT = 32, 8  # channels of the deep image prior, and those of its input


def data_range(auxiliary: Auxiliary) -> tuple[Tensor, Tensor]:
    """Return least and greatest inputs, as auxiliary data has them.

    Of images, channel by channel; else of each feature. Without such data pixels are from 0 to 1,
    and features, which are standardised, from −3 to 3.
    """
    inputs = auxiliary.inputs
    if inputs is None or not len(inputs):
        edges = (0.0, 1.0) if len(input_shape(auxiliary)) == 3 else (-3.0, 3.0)
        return torch.tensor(edges[0]), torch.tensor(edges[1])
    dims = (0, 2, 3) if inputs.ndim == 4 else (0,)
    return inputs.amin(dim=dims, keepdim=True)[0], inputs.amax(dim=dims, keepdim=True)[0]


def total_variation(images: Images) -> Float[Tensor, " rows"]:
    """Return mean |difference of vertical neighbours| + the same of horizontal ones.

    Source: Geiping, Bauermeister, Dröge, Moeller, NeurIPS 2020: anisotropic, over all channels.

    Raises:
        ValueError: They have no height and width.
    """
    if images.ndim < 5:
        raise NotApplicable(
            "tv: must be 0 for inputs that are not (channels, height, width), "
            f"got inputs of shape {tuple(images.shape[2:])}"
        )
    down = (images[..., 1:, :] - images[..., :-1, :]).abs()
    right = (images[..., 1:] - images[..., :-1]).abs()
    return sum(
        (part.flatten(1).mean(dim=1) for part in (down, right) if part.numel()),
        start=images.new_zeros(len(images)),
    )


def energy(images: Images) -> Float[Tensor, " rows"]:
    """Return the mean square."""
    return images.square().flatten(1).mean(dim=1)


@dataclass(frozen=True, eq=False)
class Form:
    """What guesses are written as.

    Attributes:
        size: Numbers per row.
        start: (rows, generator) → where rows begin, (rows, size).
        images: (rows, size) → (rows, batch, *shape).
        project: Puts numbers back to where they are allowed; None where all are.
    """

    size: int
    start: Callable[[int, Generator], Tensor]
    images: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], Tensor] | None = None


def pixels(
    shape: tuple[int, ...], dtype: torch.dtype, *, box: tuple[Tensor, Tensor] | None, start: Start
) -> Form:
    """Return guesses as they are.

    Args:
        shape: (batch, *shape of one).
        dtype: Of the numbers.
        box: Least and greatest values, each of a shape that spreads over `shape`; points are kept
            between them. None: anywhere.
        start: "grey" begins evenly within `NEAR` of the middle of the box, or of 0 and 1;
            "uniform" evenly in it; "normal" as N(0, 1).
    """
    low, high = box or (torch.zeros(()), torch.ones(()))
    low, high = (edge.to(dtype).expand(shape).flatten() for edge in (low, high))

    def begin(rows: int, generator: Generator) -> Tensor:
        draw = torch.randn if start == "normal" else torch.rand
        drawn = draw(rows, prod(shape), dtype=dtype, generator=generator)
        if start == "grey":
            drawn = 0.5 + NEAR * (2 * drawn - 1)
        return drawn if start == "normal" else low + drawn * (high - low)

    return Form(
        prod(shape),
        begin,
        lambda v: v.unflatten(1, shape),
        None if box is None else lambda v: torch.maximum(torch.minimum(v, high), low),
    )


def deep_image(shape: tuple[int, ...], dtype: torch.dtype, generator: Generator) -> Form:
    """Return guesses as the outputs of an untrained convolutional generator on fixed noise.

    Source: Ulyanov, Vedaldi, Lempitsky, "Deep Image Prior", CVPR 2018: what is fitted are the
    generator's weights, whose pictures are smooth before they are anything else. Here it is small:
    three convolutions of 32 channels at two resolutions, a sigmoid at the end, and an input of its
    own for each example of the batch.

    Args:
        shape: (batch, channels, height, width).
        dtype: Of the numbers.
        generator: Draws the fixed noise.

    Raises:
        ValueError: Examples are no images.
    """
    if len(shape) != 4:
        raise NotApplicable(
            "prior: must not be 'deep-image' for inputs that are not (channels, height, width), "
            f"got inputs of shape {shape[1:]}"
        )
    batch, channels, height, width = shape
    net = nn.Sequential(
        nn.Conv2d(LATENT, WIDTH, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Upsample(size=(height, width), mode="bilinear"),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(WIDTH, channels, 3, padding=1),
        nn.Sigmoid(),
    ).to(dtype)
    shapes = {name: tuple(value.shape) for name, value in net.named_parameters()}
    half = -(-height // 2), -(-width // 2)
    noise = torch.rand(batch, LATENT, *half, dtype=dtype, generator=generator)

    def start(rows: int, generator: Generator) -> Tensor:
        parts = []
        for shape_ in shapes.values():
            scale = (2 / prod(shape_[1:])) ** 0.5 if len(shape_) > 1 else 0.0
            drawn = torch.randn(rows, *shape_, dtype=dtype, generator=generator)
            parts.append((drawn * scale).flatten(1))
        return torch.cat(parts, dim=1)

    def images(v: Tensor) -> Tensor:
        parts = v.split([prod(shape_) for shape_ in shapes.values()], dim=1)
        named = zip(shapes.items(), parts, strict=True)
        weights = {name: part.unflatten(1, shape_) for (name, shape_), part in named}
        return forward_rows(net, weights, noise.expand(len(v), *noise.shape))

    return Form(sum(map(prod, shapes.values())), start, images)


def generative(shape: tuple[int, ...], dtype: torch.dtype, function: Callable[..., Any]) -> Form:
    """Return guesses as what a generator of the user's makes of latent inputs.

    Args:
        shape: (batch, *shape of one).
        dtype: Of the numbers.
        function: (batch, shape of one) → (module from (n, *latent shape) to (n, *shape of one),
            latent shape). Latent inputs begin as N(0, 1).

    Raises:
        ValueError: What the module gives has another shape.
    """
    module, latent = function(shape[0], shape[1:])
    module = module.to(dtype).eval().requires_grad_(requires_grad=False)
    kind = (shape[0], *latent)
    with torch.no_grad():
        given = tuple(module(torch.zeros(kind, dtype=dtype)).shape)
    if given != tuple(shape):
        raise NotApplicable(f"prior: must give images of shape {tuple(shape)}, got {given}")
    return Form(
        prod(kind),
        lambda rows, generator: torch.randn(rows, prod(kind), dtype=dtype, generator=generator),
        lambda v: module(v.reshape(-1, *latent)).unflatten(0, (len(v), shape[0])),
    )


def form_of(
    prior: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    generator: Generator,
    *,
    box: tuple[Tensor, Tensor] | None,
    start: Start,
) -> Form:
    """Return the form that an option names: "pixels", "deep-image" or "module:function".

    Args:
        prior: The name.
        shape: (batch, *shape of one).
        dtype: Of the numbers.
        generator: Draws what is fixed.
        box: As for `pixels`.
        start: As for `pixels`; other forms begin in their own way.

    Raises:
        ConfigError: There is no such prior, or it cannot be imported.
        ValueError: It does not fit the shape.
    """
    if prior == "pixels":
        return pixels(shape, dtype, box=box, start=start)
    if prior == "deep-image":
        return deep_image(shape, dtype, generator)
    builtin: dict[str, Any] = dict.fromkeys(("pixels", "deep-image"))
    return generative(shape, dtype, find("prior", prior, builtin))
