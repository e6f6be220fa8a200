"""The score of a run: how far its uploads lie towards what is expected with the canary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        distances: ‖c₁ − c₀‖ of each round.
    """

    middles: Sequence[Tensor]
    directions: Sequence[Tensor]
    distances: NDArray[np.float64]

    def of_round(self, place: int, block: Tensor) -> Tensor:
        """Return what one round adds to the scores of a block of runs, shape (n)."""
        length = float(np.sqrt((self.distances**2).sum()))
        return (block - self.middles[place]).double() @ self.directions[place].double() / length

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

    Raises:
        RunStopped: They do not differ.
    """
    without, having = (mechanism.expected(neighbours, which) for which in (0, 1))
    pairs = list(zip(having, without, strict=True))
    directions = [present - absent for present, absent in pairs]
    middles = [(present + absent) / 2 for present, absent in pairs]
    distances = np.array([float(value.double().norm()) for value in directions])
    if not distances.any():
        raise RunStopped("canary: must move the update, got two neighbours with the same upload")
    return Statistic(middles, directions, distances)
