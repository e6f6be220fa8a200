"""The ranges that an adversary asks about, and the training rows that lie in them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from fedsim.config.adversary import RangeQueries
from fedsim.core.accepts import Rule
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.core.types import Ranges
from fedsim.data import Federated

FIRST = 16  # entries that are compared first, to leave most rows out
RADIUS = Rule("config", "auxiliary.range.radius", "must be 0 for inputs that are whole numbers")
CHECKS = (RADIUS,)


@dataclass(frozen=True, eq=False)
class AskedRanges:
    """Ranges, and the truth about them.

    Attributes:
        ranges: As the adversary has them.
        hits: Pairs of a range and a training row that lies in it, shape (2, k).
    """

    ranges: Ranges
    hits: Int[Tensor, "2 k"]

    def hit_by(self, rows: Int[Tensor, " n"]) -> Bool[Tensor, " m"]:
        """Return for every range whether any of these training rows lies in it."""
        hit = torch.zeros(len(self.ranges.labels), dtype=torch.bool)
        hit[self.hits[0, torch.isin(self.hits[1], rows)]] = True
        return hit


def draw_ranges(federated: Federated, queries: RangeQueries, seed: int) -> AskedRanges:
    """Build ranges around clients' rows and test rows, half each; fewer if there are not as many.

    Raises:
        ConfigError: Whole numbers are to be off by a share of their spread.
    """
    dataset = federated.dataset
    if queries.radius and not dataset.inputs.is_floating_point():
        raise ConfigError(f"{RADIUS.field}: {RADIUS.rule}, got {queries.radius}")
    private, stream = torch.cat(federated.clients), generator(seed, "ranges")
    used = private[torch.randperm(len(private), generator=stream)[: queries.count // 2]]
    order = torch.randperm(len(dataset.test_labels), generator=stream)
    tests = order[: queries.count - queries.count // 2]
    records = torch.cat([dataset.inputs[used], dataset.test_inputs[tests]])
    labels = torch.cat([dataset.labels[used], dataset.test_labels[tests]])
    bounds = dataset.inputs.amin(dim=0), dataset.inputs.amax(dim=0)
    ranges = around(records, labels, bounds, queries, stream)
    return AskedRanges(ranges, rows_within(ranges, dataset.inputs, dataset.labels))


def around(
    records: Tensor,
    labels: Tensor,
    bounds: tuple[Tensor, Tensor],
    queries: RangeQueries,
    stream: Generator,
) -> Ranges:
    """Return a range with every record in it, at a place that does not give it away.

    Args:
        records: Shape (m, *input_shape).
        labels: Shape (m,).
        bounds: Smallest and largest value of each entry in the data, shape (*input_shape).
        queries: How much of a record is known.
        stream: Draws the missing entries and the places.
    """
    lowest, highest = bounds
    low, high = records.clone(), records.clone()
    if queries.radius:
        spread = queries.radius * (highest - lowest)
        centre = records + (2 * torch.rand(records.shape, generator=stream) - 1) * spread
        # Rounding must not leave the record outside.
        low, high = torch.minimum(centre - spread, records), torch.maximum(centre + spread, records)
    entries = lowest.numel()
    order = torch.rand(len(records), entries, generator=stream).argsort(dim=1)
    missing = (order < round(queries.missing * entries)).view_as(records)
    return Ranges(torch.where(missing, lowest, low), torch.where(missing, highest, high), labels)


def rows_within(ranges: Ranges, inputs: Tensor, labels: Int[Tensor, " n"]) -> Int[Tensor, "2 k"]:
    """Return all pairs of a range and a row that lies in it."""
    flat, lows, highs = inputs.flatten(1), ranges.low.flatten(1), ranges.high.flatten(1)
    pairs = [torch.zeros(2, 0, dtype=torch.int64)]
    for place, (low, high, label) in enumerate(zip(lows, highs, ranges.labels, strict=True)):
        rows = torch.nonzero(labels == label)[:, 0]
        tight = (high - low).argsort()
        for entries in (tight[:FIRST], tight[FIRST:]):
            values = flat[rows][:, entries]
            inside = (values >= low[entries]) & (values <= high[entries])
            rows = rows[inside.all(dim=1)]
        pairs.append(torch.stack([torch.full_like(rows, place), rows]))
    return torch.cat(pairs, dim=1)
