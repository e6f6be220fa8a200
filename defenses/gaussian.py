"""Gaussian noise on every entry of an update."""

import math

import torch
from torch import Generator, Tensor

from defenses.defense import Defense, State
from fedsim.types import Params


def gaussian(*, std: float = 0.01) -> Defense:
    """Add independent N(0, std²) to every entry of the update.

    Differentially private only after `clip`, towards the server, and only for noise from a
    secret seed; a formal statement and its accounting belong to the mechanism as a whole.

    Args:
        std: Standard deviation in units of the update; ≥ 0.

    Raises:
        ValueError: `std` is negative or not finite.
    """
    if not (std >= 0 and math.isfinite(std)):
        raise ValueError(f"std: must be finite and ≥ 0, got {std}")

    def apply(
        params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        return {
            name: value + std * torch.randn(value.shape, dtype=value.dtype, generator=generator)
            for name, value in params.items()
        }, state

    return Defense("gaussian", apply)
