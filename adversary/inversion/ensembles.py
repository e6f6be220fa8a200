"""Records of a table by gradient matching: relaxed while they are fitted, pooled afterwards.

A category is the softmax of a logit per value, a number the sigmoid of one between its bounds. The
members of an ensemble are put into one order by optimal assignment on the cells that agree, and
pooled cell by cell; how far they disagree says where the pooled answer may be wrong.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.inversion.priors import Form
from fedsim.core.schema import TOLERANCE, Column, Schema, same

Doubt = Literal["agreement", "entropy"]


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
    losses: Float[Tensor, " members"],
    relaxation: Relaxation,
    tolerances: Float[Tensor, " columns"],
    *,
    sharpness: float,
    by: Doubt = "agreement",
) -> Pooled:
    """Return the records that members agree on most.

    Args:
        members: Relaxed records, those of a category as probabilities times codes.
        losses: Of the members; the order is that of the least.
        relaxation: What the inputs stand for.
        tolerances: As `Schema.tolerances` returns them.
        sharpness: A member's vote is (least loss / own loss) to this power; 0 for equal votes.
            Uncertainty is over all members alike.
        by: "agreement": one minus the members' mean probability of the answered category, or share
            of numbers within the tolerance of the answered one. "entropy": of the members' mean
            probabilities, over that of even ones; of numbers their deviation over the column's, at
            most 1, which is eʰ for the difference h of the two Gaussian entropies.
    """
    schema = relaxation.schema
    ordered = _ordered(members, int(losses.argmin()), relaxation, tolerances)
    least = torch.finfo(losses.dtype).tiny
    votes = (losses.clamp(min=least).min() / losses.clamp(min=least)).double() ** sharpness
    middle = _median(ordered, votes / votes.sum())
    records = schema.rounded(middle, relaxation.low, relaxation.high)
    doubts = {"agreement": _disagreement, "entropy": _entropy}
    uncertainty = torch.zeros_like(records)
    for column, tolerance in zip(schema.columns, tolerances.tolist(), strict=True):
        of = ordered[..., list(column.features)].double()
        unsure = doubts[by](column, of, column.cells(records), tolerance)
        uncertainty[:, list(column.features)] = unsure.clamp(0, 1).unsqueeze(1)
    return Pooled(records, uncertainty)


def _median(
    values: Float[Tensor, "members batch features"], votes: Float[Tensor, " members"]
) -> Float[Tensor, "batch features"]:
    """Return the least value that half of the votes do not exceed."""
    ranked, order = values.sort(dim=0)
    reached = votes[order].cumsum(dim=0) >= 0.5 - 1e-9
    return ranked.gather(0, reached.long().argmax(dim=0, keepdim=True))[0]


def _ordered(
    members: Tensor, best: int, relaxation: Relaxation, tolerances: Tensor
) -> Float[Tensor, "members batch features"]:
    """Return members with their records in the order of the best one's."""
    from scipy.optimize import linear_sum_assignment

    cells = relaxation.schema.cells(members.flatten(0, 1)).unflatten(0, members.shape[:2])
    ordered = []
    for member, of in zip(members, cells, strict=True):
        agreeing = same(cells[best], of, tolerances)
        ordered.append(member[torch.as_tensor(linear_sum_assignment(-agreeing.numpy())[1])])
    return torch.stack(ordered)


def _disagreement(
    column: Column, members: Tensor, answers: Float[Tensor, " batch"], tolerance: float
) -> Float[Tensor, " batch"]:
    """Return one minus the share of the members that say what is answered."""
    if column.codes is None:
        return 1 - ((members[..., 0] - answers).abs() <= tolerance).double().mean(dim=0)
    shares = _probabilities(members, column.codes.double())
    return 1 - shares.gather(1, answers.long().unsqueeze(1))[:, 0]


def _entropy(
    column: Column,
    members: Tensor,
    answers: Float[Tensor, " batch"],  # noqa: ARG001
    tolerance: float,
) -> Float[Tensor, " batch"]:
    """Return the entropy of the members of each cell, over that of the column."""
    if column.codes is None:
        deviation = tolerance / TOLERANCE
        return members[..., 0].std(dim=0, correction=0) / (deviation or 1.0)
    shares = _probabilities(members, column.codes.double())
    return torch.special.entr(shares).sum(dim=1) / max(math.log(shares.shape[1]), 1e-12)


def _probabilities(
    members: Float[Tensor, "members batch features"], codes: Float[Tensor, "values features"]
) -> Float[Tensor, "batch values"]:
    """Return the mean probabilities of which the members' features are the mixed codes."""
    ones = torch.ones(*members.shape[:-1], 1, dtype=members.dtype)
    solve = torch.linalg.pinv(torch.cat([codes, ones[0, :1].expand(len(codes), 1)], dim=1))
    shares = (torch.cat([members, ones], dim=-1) @ solve).clamp(min=0).mean(dim=0)
    return shares / shares.sum(dim=1, keepdim=True)
