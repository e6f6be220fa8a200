"""Rows of a table by the values of their columns."""

from typing import TYPE_CHECKING, Any

import numpy as np

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
