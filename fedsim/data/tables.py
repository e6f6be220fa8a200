"""What tabular sets share: numbers standardised, categories one-hot, both by the training rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.data.types import Attribute, Number

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Encoded:
    """The rows of a table as inputs of a model.

    Attributes:
        inputs: Of the training rows.
        test_inputs: Of the test rows.
        attributes: Where the inputs say which category.
        numbers: Where they hold which number.
    """

    inputs: Float[Tensor, "n features"]
    test_inputs: Float[Tensor, "m features"]
    attributes: dict[str, Attribute]
    numbers: dict[str, Number]


def encode(
    train: "pd.DataFrame", test: "pd.DataFrame", *, numbers: list[str], categories: list[str]
) -> Encoded:
    """Return the inputs of both halves: numbers first, then categories.

    Numbers are standardised; a missing number is 0. Categories are one-hot; a category that no
    training row has is all zeros. Mean, deviation and categories are those of the training rows.
    """
    import pandas as pd

    mean, std = train[numbers].mean(), train[numbers].std()
    values = {name: pd.Index(sorted(set(train[name].astype(str)))) for name in categories}

    def inputs(rows: "pd.DataFrame") -> Tensor:
        parts = [((rows[numbers] - mean) / std).fillna(0).to_numpy(np.float32)]
        for name, index in values.items():
            position = index.get_indexer(pd.Index(rows[name].astype(str)))  # -1: a new category
            parts.append((position[:, None] == np.arange(len(index))).astype(np.float32))
        return torch.from_numpy(np.concatenate(parts, axis=1))

    columns = {name: _number(place, train[name]) for place, name in enumerate(numbers)}
    attributes = _attributes(values, start=len(numbers))
    return Encoded(inputs(train), inputs(test), attributes, columns)


def _number(place: int, column: Any) -> Number:
    """Return how a column is standardised; one without a number has a mean and deviation of 0."""
    numbers = column.dropna()
    if not len(numbers):
        return Number(place, deviation=0.0)
    mean, deviation = float(numbers.mean()), float(numbers.std()) if len(numbers) > 1 else 0.0
    return Number(place, mean, deviation, whole=bool((numbers % 1 == 0).all()))


def _attributes(values: dict[str, "pd.Index"], *, start: int) -> dict[str, Attribute]:
    """Return which features encode each category, from the feature `start` on."""
    attributes = {}
    for name, index in values.items():
        columns = tuple(range(start, start + len(index)))
        attributes[name] = Attribute(columns, tuple(index), torch.eye(len(index)))
        start += len(index)
    return attributes
