"""The score of a run: how far its uploads lie towards what is expected with the canary."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.audit.batches import Neighbours
from fedsim.audit.mechanism import Mechanism
from fedsim.core.errors import RunStopped


@dataclass(frozen=True, eq=False)
class Statistic:
    """The likelihood ratio under noise of equal variance everywhere, whose midpoint is 0.

    Σ_r ⟨u_r − (c₁ + c₀)/2, c₁ − c₀⟩ / (Σ_r ‖c₁ − c₀‖²)^½, where c₀ and c₁ are the uploads without
    noise.

    Attributes:
        middles, directions: Of each round, shape (d,).
        distances: How far apart the canary moves what noise is added to, in each round; ‖c₁ − c₀‖
            where no link comes after the noise.
    """

    middles: Sequence[Tensor]
    directions: Sequence[Tensor]
    distances: NDArray[np.float64]

    @cached_property
    def length(self) -> float:
        """(Σ_r ‖c₁ − c₀‖²)^½."""
        return float(np.sqrt((_lengths(self.directions) ** 2).sum()))

    def of_round(self, place: int, block: Tensor) -> Tensor:
        """Return what one round adds to the scores of a block of runs, shape (n)."""
        apart = (block - self.middles[place]).double() @ self.directions[place].double()
        return apart / self.length

    def expected(self, place: int) -> tuple[Tensor, Tensor]:
        """Return a round's upload without noise: without the canary, and with it."""
        half = self.directions[place] / 2
        return self.middles[place] - half, self.middles[place] + half

    def scores(self, uploads: Iterator[tuple[int, Tensor]], rounds: int) -> NDArray[np.float64]:
        """Return the score of every run."""
        sums, blocks = torch.zeros(()), []
        for place, block in uploads:
            sums = sums + self.of_round(place, block)
            if place == rounds - 1:
                blocks.append(sums)
                sums = torch.zeros(())
        return torch.cat(blocks).numpy()


def statistic(mechanism: Mechanism, neighbours: Neighbours) -> Statistic:
    """Return the score that tells two neighbours apart best, if the mechanism is as declared.

    Where links after the noise let no difference through (`sign`, `prune`), the score looks along
    what differs before the noise.

    Raises:
        RunStopped: They do not differ there.
    """
    before = _pairs(mechanism.before_noise, neighbours)
    apart = [present - absent for absent, present in before]
    distances = _lengths(apart)
    if not distances.any():
        raise RunStopped("canary: must move the update, got two neighbours with the same upload")
    pairs = before
    if mechanism.noised is not mechanism.quiet:
        pairs = _pairs(mechanism.expected, neighbours)
    directions = [present - absent for absent, present in pairs]
    if not _lengths(directions).any():
        directions = apart
    return Statistic([(present + absent) / 2 for absent, present in pairs], directions, distances)


def _pairs(
    expected: Callable[[Neighbours, int], list[Tensor]], neighbours: Neighbours
) -> list[tuple[Tensor, Tensor]]:
    """Return what is expected in each round without the canary, and with it."""
    return list(zip(*(expected(neighbours, which) for which in (0, 1)), strict=True))


def _lengths(vectors: Sequence[Tensor]) -> NDArray[np.float64]:
    return np.array([float(vector.double().norm()) for vector in vectors])
