"""Features of uploads: projections, distances and norms of every tensor, and the upload's grain.

Each round's uploads are measured, and how they differ from the round before: over several rounds
the features are means over rounds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from adversary.auditing.features import Features
from fedsim.audit.noise import HALF
from fedsim.audit.statistic import Statistic
from fedsim.core.rng import generator

WHOLE = "upload"  # what the whole is called, beside its tensors
OF_PART = (
    "along the canary", "distance without the canary", "distance with the canary", "norm",
    "mean", "largest entry", "largest step without the canary", "largest step with the canary",
)  # fmt: skip
GRAIN = ("grain without the canary", "grain with the canary")
LOSS = "loss of the canary"
TINY = 1e-30  # below every square: the logarithm of zero
TOGETHER, GROUP = 2**22, 256  # entries, and blocks of runs, that are measured at once
LEAST = 2  # entries of a part whose repeats are looked for


@dataclass(frozen=True, eq=False)
class Measures:
    """How features of uploads are measured.

    Attributes:
        statistic: What is expected with and without the canary.
        sizes: Name of every trained tensor → its number of entries, in the order of an upload.
        loss: Uploads of runs, shape (n, d) → one more feature, shape (n).
    """

    statistic: Statistic
    sizes: Mapping[str, int]
    loss: Callable[[Tensor], Tensor] | None = None

    @property
    def rounds(self) -> int:
        """Rounds of a run."""
        return len(self.statistic.middles)

    @property
    def names(self) -> list[str]:
        """Names of the features, in their order."""
        parts = [*self.sizes, *([WHOLE] if len(self.sizes) > 1 else [])]
        names = [f"{part}: {what}" for part in parts for what in OF_PART]
        names += [f"{WHOLE}: {what}" for what in GRAIN]
        names += [f"{name}, between rounds" for name in names if self.rounds > 1]
        return [*names, LOSS] if self.loss else names

    @property
    def mark_names(self) -> list[str]:
        """Names of the marks: parts of an upload in every round."""
        parts = [name for name, size in self.sizes.items() if size >= LEAST] + [WHOLE]
        if self.rounds == 1:
            return parts
        return [f"{part} in round {place + 1}" for place in range(self.rounds) for part in parts]

    def measured(self, uploads: Iterator[tuple[int, Tensor]]) -> dict[str, Tensor]:
        """Return scores (n), features (n, f) and marks (n, k · rounds) of runs.

        Args:
            uploads: Round and a block of runs' uploads, as `Mechanism.uploads` yields them.
        """
        parts = [self._runs(rounds) for rounds in self._grouped(uploads)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _grouped(self, uploads: Iterator[tuple[int, Tensor]]) -> Iterator[list[Tensor]]:
        """Put runs that come one by one together; yield the uploads of every round."""
        rounds: list[list[Tensor]] = [[] for _ in range(self.rounds)]
        entries = 0
        for place, block in uploads:
            rounds[place].append(block)
            entries += block.numel()
            if place == self.rounds - 1 and (entries > TOGETHER or len(rounds[0]) >= GROUP):
                yield [torch.cat(blocks) for blocks in rounds]
                rounds, entries = [[] for _ in range(self.rounds)], 0
        if entries:
            yield [torch.cat(blocks) for blocks in rounds]

    def _runs(self, rounds: Sequence[Tensor]) -> dict[str, Tensor]:
        """Measure all rounds of some runs."""
        expected = [self.statistic.expected(place) for place in range(self.rounds)]
        each = [self._features(block, *pair) for block, pair in zip(rounds, expected, strict=True)]
        columns = [torch.stack(each).mean(dim=0)]
        if self.rounds > 1:
            changes = [
                self._features(
                    rounds[place] - rounds[place - 1],
                    expected[place][0] - expected[place - 1][0],
                    expected[place][1] - expected[place - 1][1],
                )
                for place in range(1, self.rounds)
            ]
            columns.append(torch.stack(changes).mean(dim=0))
        if self.loss:
            columns.append(self.loss(rounds[-1])[:, None])
        scores = [self.statistic.of_round(place, block) for place, block in enumerate(rounds)]
        return {
            "scores": torch.stack(scores).sum(dim=0),
            "features": torch.cat(columns, dim=1),
            "marks": torch.cat([self._marks(block) for block in rounds], dim=1),
        }

    def _features(self, block: Tensor, absent: Tensor, present: Tensor) -> Tensor:
        sizes = list(self.sizes.values())
        parts = list(
            zip(*(each.split(sizes, dim=-1) for each in (block, absent, present)), strict=True)
        )
        columns = [_of_part(*part) for part in parts]
        if len(parts) > 1:
            columns.append(_of_part(block, absent, present))
        grains = [_grain(block - absent), _grain(block - present)]
        return torch.cat([*columns, torch.stack(grains, dim=1)], dim=1)

    @cached_property
    def _weights(self) -> Tensor:
        size, coins = sum(self.sizes.values()), generator(0, "audit", "marks")
        return torch.randn(size, dtype=torch.float64, generator=coins)

    def _marks(self, block: Tensor) -> Tensor:
        """Return a random projection of every part: equal where the part is."""
        products = (block.double() * self._weights).split(list(self.sizes.values()), dim=1)
        sums = [part.sum(dim=1) for part in products]
        kept = [part for part, size in zip(sums, self.sizes.values(), strict=True) if size >= LEAST]
        return torch.stack([*kept, torch.stack(sums).sum(dim=0)], dim=1)


def _of_part(x: Tensor, absent: Tensor, present: Tensor) -> Tensor:
    """Return `OF_PART` of one tensor of many runs, shape (n, 8)."""
    direction = present - absent
    length = direction.norm().clamp(min=TINY**0.5)
    columns = [
        (x - (absent + present) / 2) @ direction / length,
        _log((x - absent).square().sum(dim=1)),
        _log((x - present).square().sum(dim=1)),
        _log(x.square().sum(dim=1)),
        x.mean(dim=1),
        _log(x.abs().amax(dim=1)),
        _log((x - absent).abs().amax(dim=1)),
        _log((x - present).abs().amax(dim=1)),
    ]
    return torch.stack([column.double() for column in columns], dim=1)


def _grain(noise: Tensor) -> Tensor:
    """Return how far noise is from numbers of half precision, in their steps: 1/4 by chance.

    Noise that was drawn in bfloat16 or float16 stands on them, once the right upload is taken off.
    """
    bits = noise.float().contiguous().view(torch.int32)
    step = 1 << HALF
    past = bits & (step - 1)
    return _log(torch.minimum(past, step - past).double().mean(dim=1) / step)


def _log(values: Tensor) -> Tensor:
    return values.double().clamp(min=TINY).log()


def features_of(
    measures: Measures, without: Sequence[Mapping[str, Tensor]], having: Sequence[Mapping]
) -> Features:
    """Return the features of all runs.

    Args:
        measures: How they were measured.
        without: What `Measures.measured` returned of runs without the canary, in parts.
        having: The same with it.
    """

    def joined(parts: Sequence[Mapping[str, Tensor]], name: str) -> np.ndarray:
        return torch.cat([part[name] for part in parts]).numpy()

    return Features(
        names=measures.names,
        without=joined(without, "features"),
        having=joined(having, "features"),
        mark_names=measures.mark_names,
        marks_without=joined(without, "marks"),
        marks_having=joined(having, "marks"),
    )
