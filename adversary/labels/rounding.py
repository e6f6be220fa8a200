"""Noise on the entries of an update, tensor by tensor: Gaussian noise, and rounding behind it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SIZES = 256  # of entries, at most, where they were rounded to eight bits or fewer
WHOLE = 1e-3  # of a step is how far a multiple of it may be off
MANY = 60  # entries beyond the classes' means, from which a tensor shows its noise by itself
WAVES = 200  # of the series of a rounding's variance
LEVELS = tuple(2.0 ** (-k / 4) for k in range(80))  # of the largest mean square: variances tried


@dataclass(frozen=True)
class Remainder:
    """What of a tensor no class's mean explains.

    Attributes:
        square: Sum of squares of the whole tensor.
        energy: That of what is left.
        freedom: Of how many dimensions it is; ≥ 0.
        examples: How much of it the examples' own differences are expected to be.
        size: Entries of the tensor.
        step: Between the multiples that entries were rounded to; None where they were not.
        signs: Whether all entries have one size.
    """

    square: float
    energy: float
    freedom: int
    examples: float
    size: int
    step: float | None = None
    signs: bool = False

    def variance(self, noise: float) -> float:
        """Return the variance of an entry's noise behind rounding, from that before it."""
        if self.step is None:
            return noise
        return noise + rounding_variance(self.step, noise + self.examples / self.size)

    @property
    def alone(self) -> float:
        """The variance of an entry's noise that the tensor shows by itself."""
        return max(0.0, self.energy - self.examples) / max(1, self.freedom)


def step_of(tensor: Tensor) -> float | None:
    """Return the step whose multiples all entries are; None where they have too many sizes."""
    if _sizes(tensor[: 8 * SIZES]).numel() > SIZES:  # spares sorting all entries
        return None
    sizes = _sizes(tensor)
    if not 0 < len(sizes) <= SIZES:
        return None
    multiples = sizes / sizes[0]
    off = float((multiples - multiples.round()).abs().max())
    return float(sizes[0]) if off <= WHOLE * float(multiples[-1]) else None


def _sizes(tensor: Tensor) -> Tensor:
    return tensor[tensor != 0].abs().double().unique()


def is_signs(tensor: Tensor) -> bool:
    """Return whether all of several entries have one size."""
    sizes = tensor.abs()
    return (
        tensor.numel() > 1 and float(sizes.max()) > 0 and float(sizes.min()) == float(sizes.max())
    )


def rounding_variance(step: float, variance: float) -> float:
    """Return the mean variance of rounding N(0, variance) at random to multiples of a step.

    Rounding x with x as mean has the variance step²·f·(1 − f), where f is what x/step has beyond a
    whole number; f·(1 − f) = 1/6 − Σ_k cos(2πkf)/(πk)².
    """
    k = torch.arange(1, WAVES + 1, dtype=torch.float64)
    waves = (-2 * (math.pi * k) ** 2 * variance / step**2).exp() / (math.pi * k).square()
    return step**2 * max(0.0, 1 / 6 - float(waves.sum()))


def variances(remainders: Mapping[str, Remainder]) -> dict[str, float]:
    """Return the variance of noise on the entries of each tensor.

    Noise before rounding is taken to be the same in all tensors; its variance is the most likely
    one. A tensor of many entries shows what noise it has by itself.
    """
    shown = [r for r in remainders.values() if r.freedom >= MANY and not r.signs]
    largest = max((r.energy / r.freedom for r in shown), default=0.0)

    def likelihood(noise: float) -> float:
        total = 0.0
        for r in shown:
            expected = max(r.variance(noise) + r.examples / r.freedom, 1e-300)
            total -= r.freedom * (math.log(expected) + r.energy / r.freedom / expected) / 2
        return total

    common = max((0.0, *(largest * level for level in LEVELS)), key=likelihood) if shown else 0.0
    few = lambda r: r.square / r.size if r.signs else r.variance(common)
    return {n: r.alone if r.freedom >= MANY else few(r) for n, r in remainders.items()}
