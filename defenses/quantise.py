"""QSGD: stochastic rounding of an update to few levels."""

import torch
from torch import Generator, Tensor

from defenses.defense import Defense, State
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.types import Params


def quantise(*, bits: int = 4) -> Defense:
    """Round every entry at random to a multiple of ‖x‖/s, with the entry itself as mean.

    Source: Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD via
    Gradient Quantization and Encoding", NeurIPS 2017, section 3.1; ‖x‖ is the Euclidean norm of
    each tensor and s = 2^(bits−1) − 1. What is uploaded has 2s + 1 values per tensor, in the
    update's own dtype: nothing is packed. Promises no privacy.

    Args:
        bits: Of an entry, one of them for its sign; 2 to 16.

    Raises:
        ValueError: `bits` is outside 2 to 16.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits: must be 2 to 16, got {bits}")
    levels = 2 ** (bits - 1) - 1

    def apply(
        params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        return {name: _rounded(value, levels, generator) for name, value in params.items()}, state

    promise = Promise(statement="blurs every entry by rounding; the mean of many rounds is exact")
    return Defense(name="quantise", apply=apply, promise=promise)


def _rounded(value: Tensor, levels: int, generator: Generator) -> Tensor:
    # Half precision has too few values between two levels for the mean to be right.
    exact = value.to(torch.promote_types(value.dtype, torch.float32))
    step = torch.linalg.vector_norm(exact) / levels
    if step == 0:
        return torch.zeros_like(value)
    # ⌊x + u⌋ is x rounded up with probability x − ⌊x⌋, below zero too: the sign needs no care.
    draws = torch.rand(exact.shape, dtype=exact.dtype, generator=generator)
    symbols = draws.addcdiv_(exact, step).floor_().clamp_(-levels, levels)
    return symbols.mul_(step).to(value.dtype)


DEFENSE = Entry("quantise", quantise, paper="Alistarh, Grubic, Li, Tomioka, Vojnovic, NeurIPS 2017")
