"""J at a few inputs and weights: how much of an input the gradient holds somewhere."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log10

import torch
from torch import Generator, Tensor, nn

from adversary.inversion.jacobian import Spectrum
from adversary.inversion.jacobian import spectrum as spectrum_of
from adversary.inversion.precision import errors, gradients, levels
from fedsim.core.boundary import PASSING
from fedsim.core.doubled import doubled
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining

MOST_INPUTS = 4096  # every direction is looked at up to this many entries of the input,
MOST_WEIGHTS = 30_000_000  # and up to this many parameters; of larger models, some directions
FEW = 256  # random directions
LOOKS = 3  # at which directions must all be hidden
WIDE = 2.0  # standard deviation of the last look's input,
MOVED, LEAST = 0.5, 0.1  # and of how far weights move, in their size, which is at least that
LARGE = 1_000_000  # parameters, from which on J is computed in float32


@dataclass(frozen=True, eq=False)
class Looks:
    """J at several weights and inputs.

    Attributes:
        best: Of the highest rank.
        first_rank: At the initial weights.
        psnr: That one upload allows there, in dB; None if not computed.
    """

    best: Spectrum
    first_rank: int
    psnr: float | None


def look_around(
    model: nn.Module,
    at: Tensor,
    seed: int,
    local: LocalTraining,
    *,
    num_classes: int,
    noise: float,
    directions: int | None,
    on_chunk: Callable[[int, int], None],
) -> Looks:
    """Return the singular values of d(gradient)/d(input)."""
    weights = sum(p.numel() for p in model.parameters())
    if directions is None and (weights > MOST_WEIGHTS or at.numel() > MOST_INPUTS):
        directions = FEW
    still = copy.deepcopy(model).eval()
    double = doubled(still)
    # float32 takes a fifth of the time, and tells singular values over 4.5 decades instead of 6.
    probed = still if weights > LARGE else double
    rounding = errors(still, at, 0, upload=local.upload, lr=local.lr)
    noisy = levels(rounding, gradients(double, at.double(), 0), noise)

    def look(
        number: int, of: nn.Module, x: Tensor, noise: Sequence[Mapping[str, float]] = ()
    ) -> Spectrum:
        return spectrum_of(
            of,
            x.to(next(of.parameters()).dtype),
            label=number % num_classes,
            generator=generator(seed, "explain", "projection"),
            noise=noise,
            directions=directions,
            on_chunk=on_chunk,
        )

    first = look(0, probed, at, [noisy])
    values = _at_others(first, look, probed, at, seed)
    return Looks(values, first.rank, -10 * log10(first.mse[0]) if first.mse else None)


def _at_others(
    first: Spectrum,
    look: Callable[[int, nn.Module, Tensor], Spectrum],
    model: nn.Module,
    at: Tensor,
    seed: int,
) -> Spectrum:
    """Return the spectrum of the highest rank at a few looks, if the first one hides directions.

    What a unit that is off hides at one input, or a weight of 0 in the first round, need not be
    hidden at other inputs and weights.
    """
    best = first
    for number in range(1, LOOKS):
        if best.hidden is None or not len(best.hidden) or best.underived is not None:
            break
        stream = generator(seed, "explain", "input", number)
        x = torch.rand(at.shape, generator=stream)
        if number > 1:
            x = WIDE * torch.randn(at.shape, generator=stream)
        try:
            other = look(number, _trained(model, stream), x)
        except PASSING:
            raise
        except Exception:  # no input of this model has such values
            continue
        best = replace(max(best, other, key=lambda it: it.rank), underived=other.underived)
    return best


def _trained(model: nn.Module, stream: Generator) -> nn.Module:
    """Return a copy whose trained parameters have moved, each by about its own size."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for value in moved.parameters():
            if value.requires_grad:
                size = max(float(value.square().mean().sqrt()), LEAST)
                value.add_(MOVED * size * torch.randn(value.shape, generator=stream))
    return moved
