"""Records of a table by gradient matching: relaxed while they are fitted, pooled afterwards.

A category is the softmax of a logit per value, a number the sigmoid of one between its bounds. The
members of an ensemble are put into one order by optimal assignment on the cells that agree, and
pooled cell by cell; how far they disagree says where the pooled answer may be wrong.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.inversion.priors import Form
from fedsim.core.schema import TOLERANCE, Schema, same


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What logits stand for.

    Attributes:
        schema: Of one record.
        low: Least value of each input, shape (features,).
        high: Greatest value of each input.
    """

    schema: Schema
    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]

    @property
    def sizes(self) -> list[int]:
        """Logits of each column: one per value, and one of a number."""
        return [max(1, len(column.values)) for column in self.schema.columns]

    def form(self, batch: int, shape: tuple[int, ...], dtype: torch.dtype) -> Form:
        """Return batches of records as logits, which begin evenly in [−1, 1].

        Args:
            batch: Number of records.
            shape: Of one as the model takes it.
            dtype: Of the numbers.
        """
        count = sum(self.sizes)
        places, mask, codes = (part.to(dtype) if part.is_floating_point() else part
                               for part in self._tables())  # fmt: skip
        numbers = self.schema.numbers
        features = [c.features[0] for c in self.schema.columns if c.is_number]
        single = places[numbers, 0]
        low, high = (edge.to(dtype)[features] for edge in (self.low, self.high))
        onto = torch.zeros(len(features), self.schema.size, dtype=dtype)
        onto[torch.arange(len(features)), features] = 1

        def images(v: Tensor) -> Tensor:
            logits = v.unflatten(1, (batch, count))
            values = low + (high - low) * logits[..., single].sigmoid()
            parts = values @ onto
            if len(codes):
                shares = (logits[..., places[~numbers]] + mask).softmax(dim=-1)
                parts = parts + shares.flatten(-2) @ codes
            return parts.unflatten(-1, shape)

        def start(rows: int, generator: Generator) -> Tensor:
            return 2 * torch.rand(rows, batch * count, dtype=dtype, generator=generator) - 1

        return Form(batch * count, start, images)

    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return which logits each column has, a mask of filled-up places, and the codes of values.

        Columns have as many places as the largest of them: one softmax serves all.
        """
        columns, sizes = self.schema.columns, self.sizes
        most = max(sizes)
        firsts = [sum(sizes[:place]) for place in range(len(sizes))]
        places = torch.zeros(len(columns), most, dtype=torch.long)
        mask, rows = [], []
        for place, (column, size, first) in enumerate(zip(columns, sizes, firsts, strict=True)):
            places[place, :size] = torch.arange(first, first + size)
            if column.codes is None:
                continue
            mask.append(torch.where(torch.arange(most) < size, 0.0, -torch.inf))
            code = torch.zeros(most, self.schema.size)
            code[:size, list(column.features)] = column.codes.float()
            rows.append(code)
        none = torch.zeros(0, self.schema.size)
        return places, torch.stack(mask) if mask else none, torch.cat([*rows, none])


@dataclass(frozen=True, eq=False)
class Pooled:
    """What an ensemble says.

    Attributes:
        records: The pooled records, shape (batch, features).
        uncertainty: Of each cell, at the features of its column, in [0, 1], same shape.
    """

    records: Float[Tensor, "batch features"]
    uncertainty: Float[Tensor, "batch features"]


def pooled(
    members: Float[Tensor, "members batch features"],
    best: int,
    relaxation: Relaxation,
    tolerances: Float[Tensor, " columns"],
) -> Pooled:
    """Return the records that members agree on most.

    The uncertainty of a category is the entropy of its members' mean probabilities, over that of
    even ones; that of a number the deviation of its members over the column's, at most 1, which is
    eʰ for the difference h of the two Gaussian entropies.

    Args:
        members: Relaxed records, those of a category as probabilities times codes.
        best: The member whose order is kept.
        relaxation: What the inputs stand for.
        tolerances: As `Schema.tolerances` returns them.
    """
    schema, ordered = relaxation.schema, _ordered(members, best, relaxation, tolerances)
    middle = ordered.median(dim=0).values
    records = schema.rounded(middle, relaxation.low, relaxation.high)
    uncertainty = torch.zeros_like(records)
    for column, tolerance in zip(schema.columns, tolerances.tolist(), strict=True):
        of = list(column.features)
        if column.codes is None:
            deviation = ordered[..., of[0]].std(dim=0, correction=0).double()
            unsure = deviation * TOLERANCE / max(tolerance, 1e-12)
        else:
            unsure = _entropy(ordered[..., of].double(), column.codes.double())
        uncertainty[:, of] = unsure.clamp(0, 1).unsqueeze(1)
    return Pooled(records, uncertainty)


def _ordered(
    members: Tensor, best: int, relaxation: Relaxation, tolerances: Tensor
) -> Float[Tensor, "members batch features"]:
    """Return members with their records in the order of the best one's."""
    from scipy.optimize import linear_sum_assignment

    cells = relaxation.schema.cells(members.flatten(0, 1)).unflatten(0, members.shape[:2])
    ordered = []
    for member, of in zip(members, cells, strict=True):
        agreeing = same(cells[best], of, tolerances)
        ordered.append(member[torch.from_numpy(linear_sum_assignment(-agreeing.numpy())[1])])
    return torch.stack(ordered)


def _entropy(
    inputs: Float[Tensor, "members batch features"], codes: Float[Tensor, "values features"]
) -> Float[Tensor, " batch"]:
    """Return the entropy of the mean probabilities of a column's values, over that of even ones."""
    if len(codes) < 2:
        return torch.zeros(inputs.shape[1], dtype=inputs.dtype)
    ones = torch.ones(*inputs.shape[:-1], 1, dtype=inputs.dtype)
    solve = torch.linalg.pinv(torch.cat([codes, ones[0, :1].expand(len(codes), 1)], dim=1))
    shares = (torch.cat([inputs, ones], dim=-1) @ solve).clamp(min=0).mean(dim=0)
    shares = shares / shares.sum(dim=1, keepdim=True)
    return torch.special.entr(shares).sum(dim=1) / math.log(len(codes))
