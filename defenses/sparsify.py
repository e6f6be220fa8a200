"""Random sparsification: only a random share of an update's entries is uploaded."""

import torch
from torch import Generator, Tensor

from defenses.defense import Defense, State
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.types import Params

_GRID = 2**24  # torch.rand draws float32 from the multiples of 1 / _GRID


def sparsify(*, rate: float = 0.9, unbiased: bool = True) -> Defense:
    """Keep every entry by itself with probability 1 − rate, and zero the others.

    Source: Wangni, Wang, Liu, Zhang, "Gradient Sparsification for Communication-Efficient
    Distributed Optimization", NeurIPS 2018, section 2, with one probability for all entries.
    Promises no privacy: what is kept is uploaded as it is.

    Args:
        rate: Expected share of zeroed entries, to the nearest multiple of 2⁻²⁴; in [0, 1).
        unbiased: Divide what is kept by 1 − rate, so that the expected upload is the update.

    Raises:
        ValueError: `rate` is outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate: must be at least 0 and below 1, got {rate}")
    rate = min(round(rate * _GRID), _GRID - 1) / _GRID
    scale = 1 / (1 - rate) if unbiased else 1.0

    def apply(
        params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        return {
            name: _draws(value, generator).ge_(rate).mul_(value).mul_(scale).to(value.dtype)
            for name, value in params.items()
        }, state

    promise = Promise(statement="hides a random share of the entries; what is kept is exact")
    return Defense(
        name="sparsify", apply=apply, promise=promise, bound=lambda before: before * scale
    )


def _draws(like: Tensor, generator: Generator) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.rand(like.shape, dtype=dtype, generator=generator)


DEFENSE = Entry("sparsify", sparsify, paper="Wangni, Wang, Liu, Zhang, NeurIPS 2018")
