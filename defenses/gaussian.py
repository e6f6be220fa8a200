"""Gaussian noise on every entry of an update."""

import math

import torch
from torch import Generator, Tensor

from defenses.defense import Defense, State
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.types import Params


def gaussian(*, std: float = 0.01, delta: float = 1e-5) -> Defense:
    """Add independent N(0, std²) to every entry of the update.

    After `clip` it is the Gaussian mechanism and differentially private towards the server, as
    long as the noise comes from a secret seed; alone it promises nothing, because an update may
    be arbitrarily long.

    Args:
        std: Standard deviation in units of the update; ≥ 0.
        delta: δ at which ε is stated after `clip`; in (0, 1).

    Raises:
        ValueError: `std` is negative or not finite, or `delta` no probability.
    """
    if not (std >= 0 and math.isfinite(std)):
        raise ValueError(f"std: must be finite and ≥ 0, got {std}")
    if not 0 < delta < 1:
        raise ValueError(f"delta: must be above 0 and below 1, got {delta}")

    def apply(
        params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        noise = {
            name: torch.randn(value.shape, dtype=value.dtype, generator=generator)
            for name, value in params.items()
        }
        return {name: noise[name].mul_(std).add_(value) for name, value in params.items()}, state

    promise = Promise(statement="noise blurs every entry; a guarantee only after clip")
    return Defense(name="gaussian", apply=apply, promise=promise, noise=std, delta=delta)


DEFENSE = Entry("gaussian", gaussian)
