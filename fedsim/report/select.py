"""Rows of a table by the values of their columns."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def select(table: "pd.DataFrame", **values: Any) -> "pd.DataFrame":
    """Return the rows in which each column has its value, or one of a list of values.

    Example:
        `select(metrics, split="attack", metric=["failed", "epsilon"])`
    """
    chosen = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        several = value if isinstance(value, list) else [value]
        chosen &= np.isin(table[column].to_numpy(), several)
    return table.take(np.flatnonzero(chosen))


def numbers(table: "pd.DataFrame", column: str) -> NDArray[np.float64]:
    """Return a column of numbers, with NaN for missing ones."""
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the rows as dictionaries, with None for missing values."""
    missing = table.isna().to_numpy()
    rows = zip(*(table[name].tolist() for name in table.columns), strict=True)
    return [
        {name: None if gone else value for name, value, gone in zip(table, row, holes, strict=True)}
        for row, holes in zip(rows, missing, strict=True)
    ]
