"""How the columns of a table stand in the inputs of a model: public, as architecture and labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PAIRS = 4_000_000  # cells that are compared at a time
TOLERANCE = 0.319  # standard deviations: a quarter of a normal column is as near to its mean


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Attributes:
        name: As the data set calls it.
        features: The inputs that encode it, from 0; one of a number.
        values: Its categories; empty for a number.
        codes: A row per category: what stands in `features`; None for a number.
        mean: Of a number: the number is mean + deviation · input.
        deviation: See `mean`.
        whole: Whether all numbers are whole.
    """

    name: str
    features: tuple[int, ...]
    values: tuple[str, ...] = ()
    codes: Float[Tensor, "values features"] | None = None
    mean: float = 0.0
    deviation: float = 1.0
    whole: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers instead of categories."""
        return self.codes is None

    def cells(self, inputs: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        """Return the input of a number, and the place of the category with the nearest code."""
        of = inputs[:, list(self.features)].double()
        if self.codes is None:
            return of[:, 0]
        # Differences themselves: of products, equal distances would differ in the last bits.
        distance = torch.cdist(of, self.codes.double(), compute_mode="donot_use_mm_for_euclid_dist")
        return distance.argmin(dim=1).double()

    def rounded(self, inputs: Float[Tensor, "n features"]) -> Float[Tensor, "n columns"]:
        """Return the nearest values that the column can have, as its features hold them."""
        cells = self.cells(inputs)
        if self.codes is not None:
            return self.codes.double()[cells.long()]
        if self.whole and self.deviation:
            number = (self.mean + self.deviation * cells).round()
            cells = (number - self.mean) / self.deviation
        return cells.unsqueeze(1)

    def texts(self, inputs: Float[Tensor, "n features"]) -> list[str]:
        """Return each record's value in words."""
        cells = self.cells(inputs).tolist()
        if self.codes is not None:
            return [self.values[int(place)] for place in cells]
        # A number that float32 leaves at 1e-8 beside a deviation of 1 is 0.
        places = (
            0 if self.whole or not self.deviation else 3 - math.floor(math.log10(self.deviation))
        )
        numbers = (round(self.mean + self.deviation * cell, places) + 0.0 for cell in cells)
        return [f"{number:.0f}" if self.whole else f"{number:.4g}" for number in numbers]


@dataclass(frozen=True, eq=False)
class Schema:
    """The columns of a table, which together take every input of a record once.

    Attributes:
        columns: In the order of their first features.
    """

    columns: tuple[Column, ...]

    @cached_property
    def numbers(self) -> Bool[Tensor, " columns"]:
        """Which columns hold numbers."""
        return torch.tensor([column.is_number for column in self.columns])

    @property
    def size(self) -> int:
        """The number of inputs."""
        return sum(len(column.features) for column in self.columns)

    def cells(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n columns"]:
        """Return the input of each number and the place of each category, float64."""
        flat = inputs.flatten(1)
        return torch.stack([column.cells(flat) for column in self.columns], dim=1)

    def rounded(
        self, inputs: Float[Tensor, "n *shape"], low: Tensor, high: Tensor
    ) -> Float[Tensor, "n *shape"]:
        """Return the nearest records that the table can hold, float64.

        Args:
            inputs: Of records, in any range.
            low: Least inputs, which spread over `inputs`; of numbers alone.
            high: Greatest inputs.
        """
        flat = inputs.double().flatten(1)
        within = torch.maximum(torch.minimum(inputs.double(), high.double()), low.double())
        within, exact = within.flatten(1), torch.empty_like(flat)
        for column in self.columns:
            source = within if column.is_number else flat
            exact[:, list(column.features)] = column.rounded(source)
        return exact.view(inputs.shape)

    def tolerances(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, " columns"]:
        """Return how far a cell may lie from another that it stands for; 0 for a category.

        Source: M. Vero et al., "TabLeak", ICML 2023, section 5: 0.319 standard deviations.

        Args:
            inputs: Records that tell the deviations.
        """
        spread = inputs.flatten(1).double().std(dim=0, correction=0)
        of = [spread[column.features[0]] if column.is_number else 0.0 for column in self.columns]
        return TOLERANCE * torch.tensor([float(value) for value in of], dtype=torch.float64)


def same(
    one: Float[Tensor, "n columns"],
    other: Float[Tensor, "m columns"],
    tolerances: Float[Tensor, " columns"],
) -> Float[Tensor, "n m"]:
    """Return in how many cells each record agrees with each other one, float64.

    Args:
        one: As `Schema.cells` returns them.
        other: The same of other records.
        tolerances: As `Schema.tolerances` returns them.
    """
    size = max(1, PAIRS // max(1, other.numel()))
    parts = [agree(part.unsqueeze(1), other, tolerances).sum(dim=2) for part in one.split(size)]
    return torch.cat([torch.zeros(0, len(other)), *parts]).double()


def agree(
    one: Float[Tensor, "*n columns"],
    other: Float[Tensor, "*m columns"],
    tolerances: Float[Tensor, " columns"],
) -> Bool[Tensor, "*both columns"]:
    """Return whether cells agree: a category exactly, a number within the tolerance."""
    return (one - other).abs() <= tolerances


def schema_of(columns: Sequence[Column], size: int) -> Schema | None:
    """Return the schema of records of `size` inputs; None unless columns take each input once."""
    taken = sorted(feature for column in columns for feature in column.features)
    if not columns or taken != list(range(size)):
        return None
    return Schema(tuple(sorted(columns, key=lambda column: column.features[0])))
