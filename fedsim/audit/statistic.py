"""The score of a run: how far its uploads lie towards what is expected with the canary."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defenses import Defense
from fedsim.audit.batches import Neighbours
from fedsim.core.errors import RunStopped


class Observed(Protocol):
    """What is seen of a mechanism: the uploads of all rounds, or the last model."""

    @property
    def quiet(self) -> Defense | None:
        """The defenses without noise."""
        ...

    @property
    def noised(self) -> Defense | None:
        """The same up to the last link with noise."""
        ...

    def uploads(
        self, neighbours: Neighbours, having: int, count: int, *names: object
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield what is seen of independent runs, by its place."""
        ...

    def expected(self, neighbours: Neighbours, having: int) -> list[Tensor]:
        """Return what is seen at every place, without noise."""
        ...

    def before_noise(self, neighbours: Neighbours, having: int) -> list[Tensor]:
        """Return what noise is added to, of every place."""
        ...


@dataclass(frozen=True, eq=False)
class Statistic:
    """The likelihood ratio under noise of equal variance everywhere, whose midpoint is 0.

    Σ_r ⟨u_r − (c₁ + c₀)/2, c₁ − c₀⟩ / (Σ_r ‖c₁ − c₀‖²)^½, where c₀ and c₁ are the uploads without
    noise.

    Attributes:
        middles, directions: Of each round, shape (d,).
        distances: How far apart the canary moves what noise is added to, in each round; ‖c₁ − c₀‖
            where no link comes after the noise. Of the last model each round has an equal share.
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


def statistic(observed: Observed, neighbours: Neighbours) -> Statistic:
    """Return the score that tells two neighbours apart best, if the mechanism is as declared.

    Where links after the noise let no difference through (`sign`, `prune`), the score looks along
    what differs before the noise.

    Raises:
        RunStopped: They do not differ there.
    """
    before = _pairs(observed.before_noise, neighbours)
    apart = [present - absent for absent, present in before]
    times = len(neighbours.states) // len(apart)
    distances = np.repeat(_lengths(apart) / times, times)
    if not distances.any():
        raise RunStopped("canary: must move the update, got two neighbours with the same upload")
    pairs = before
    if observed.noised is not observed.quiet:
        pairs = _pairs(observed.expected, neighbours)
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
