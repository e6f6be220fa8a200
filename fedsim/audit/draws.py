"""What is expected of a random function: the mean of its draws."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DRAWS = 100  # of which the mean is taken
SAME = 1e-5  # relative difference of two draws that is rounding


def mean_of_draws(draw: Callable[[int], Sequence[Tensor]]) -> list[Tensor]:
    """Return the mean of `DRAWS` draws; the first, where the second is the same.

    Args:
        draw: Number of a draw → what is drawn.
    """
    first, second = draw(0), draw(1)
    if all(_alike(*pair) for pair in zip(first, second, strict=True)):
        return list(first)
    sums = [one + other for one, other in zip(first, second, strict=True)]
    for number in range(2, DRAWS):
        sums = [total + value for total, value in zip(sums, draw(number), strict=True)]
    return [total / DRAWS for total in sums]


def _alike(one: Tensor, other: Tensor) -> bool:
    limit = SAME * float(one.abs().max())
    return bool(torch.allclose(one, other, rtol=0.0, atol=limit))
