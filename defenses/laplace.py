"""Laplace noise on every entry of an update."""

import math

import torch
from torch import Generator, Tensor

from defenses.defense import Defense, State
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.types import Params


def laplace(*, scale: float = 0.01) -> Defense:
    """Add independent Laplace noise of density exp(−|x|/scale) / (2·scale) to every entry.

    Source: Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity in Private Data
    Analysis", TCC 2006, section 2; by inversion of the distribution function. Private only where
    the update's L1 norm is bounded, which no defense here does: it promises nothing.

    Args:
        scale: In units of the update; the standard deviation is √2·scale; ≥ 0.

    Raises:
        ValueError: `scale` is negative or not finite.
    """
    if not (scale >= 0 and math.isfinite(scale)):
        raise ValueError(f"scale: must be finite and ≥ 0, got {scale}")

    def apply(
        params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        return {
            name: _noise(value, generator).mul_(scale).to(value.dtype).add_(value)
            for name, value in params.items()
        }, state

    promise = Promise(
        statement="heavy-tailed noise blurs every entry; no guarantee without a bound in L1"
    )
    return Defense(name="laplace", apply=apply, promise=promise)


def _noise(like: Tensor, generator: Generator) -> Tensor:
    """Return Laplace noise of scale 1, in float64.

    A draw is k·2⁻⁵³ with 0 ≤ k < 2⁵³. Mapped to the odd multiples of 2⁻⁵³ in (−1, 1), without
    rounding, it is symmetric and never −1, 0 or 1, so the logarithm is finite.
    """
    draws = torch.rand(like.shape, dtype=torch.float64, generator=generator)
    draws.mul_(2).sub_(1 - 2**-53)
    return draws.abs().neg_().log1p_().copysign_(draws)


DEFENSE = Entry("laplace", laplace, paper="Dwork, McSherry, Nissim, Smith, TCC 2006")
