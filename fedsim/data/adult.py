"""Adult: census records and incomes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedsim.core.catalog import Entry
from fedsim.core.errors import ConfigError, nearest
from fedsim.data.read_table import ROWS, Column, check_column, read_table
from fedsim.data.tables import encode
from fedsim.data.types import Dataset

if TYPE_CHECKING:
    import pandas as pd

TABLE = (
    Column(name="age", low=0, high=150),
    Column(name="workclass"),
    Column(name="fnlwgt", low=1, high=1e7),
    Column(name="education"),
    Column(name="education-num", low=1, high=16),
    Column(name="marital-status"),
    Column(name="occupation"),
    Column(name="relationship"),
    Column(name="race"),
    Column(name="sex", choices=frozenset({"Female", "Male"})),
    Column(name="capital-gain", low=0, high=1e6),
    Column(name="capital-loss", low=0, high=1e6),
    Column(name="hours-per-week", low=0, high=168),
    Column(name="native-country"),
    Column(name="income", choices=frozenset({"<=50K", "<=50K.", ">50K", ">50K."})),
)
COLUMNS = [column.name for column in TABLE]


def adult(root: Path, *, without: str = "") -> Dataset:
    """Census records, 104 inputs, income over 50,000 a year or not; every column by name.

    Rows with a missing value are left out (45,222 stay), numbers are standardised and categories
    one-hot by the training rows. Reads `adult.data` and `adult.test`, or asks OpenML.

    Args:
        root: The folder of the files.
        without: Columns that are no inputs, separated by commas; `Dataset.columns` has them
            still. Others may give them away, as `relationship` (husband, wife) does `sex`.

    Raises:
        ConfigError: `without` names a column that is no input, or leaves none.
        OSError: A file is missing, or OpenML cannot be reached.
        ValueError: A file is another table.
    """
    inputs = _remaining(without, COLUMNS[:-1])
    train, test = _rows(root)
    numbers = [name for name in inputs if name in train.select_dtypes("number")]
    categories = [name for name in inputs if name not in numbers]
    encoded = encode(train, test, numbers=numbers, categories=categories)
    return Dataset(
        inputs=encoded.inputs,
        labels=_labels(train),
        test_inputs=encoded.test_inputs,
        test_labels=_labels(test),
        num_classes=2,
        columns={name: train[name].to_numpy() for name in COLUMNS},
        attributes=encoded.attributes,
        numbers=encoded.numbers,
    )


def _labels(rows: "pd.DataFrame") -> Tensor:
    return torch.from_numpy(rows.income.astype(str).str.contains(">50K").to_numpy(np.int64))


def _rows(root: Path) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return the training and the test rows that lack no value."""
    if (root / "adult.data").exists():
        train, test = (_complete(root / name) for name in ("adult.data", "adult.test"))
        return train, test
    from sklearn.datasets import fetch_openml

    bunch: Any = fetch_openml("adult", version=2, as_frame=True, data_home=root)
    frame: Any = bunch.frame
    frame = frame.rename(columns={"class": "income"})[COLUMNS].dropna()
    for column in TABLE:
        check_column("OpenML", column, set(frame[column.name].astype(str)))
    return frame.iloc[: len(frame) * 2 // 3], frame.iloc[len(frame) * 2 // 3 :]


def _complete(path: Path) -> "pd.DataFrame":
    rows = read_table(path, TABLE).dropna()
    if rows.empty:
        raise ValueError(f"{path.name}: {ROWS.rule}, got none")
    return rows


def _remaining(without: str, names: Sequence[str]) -> list[str]:
    """Return `names` without those that a comma-separated text names."""
    out = {name.strip() for name in without.split(",")} - {""}
    for name in sorted(out - set(names)):
        raise ConfigError(
            f"data.without: must name input columns, got '{name}'; {nearest(name, names)}"
        )
    remaining = [name for name in names if name not in out]
    if not remaining:
        raise ConfigError(f"data.without: must leave at least one input column, got '{without}'")
    return remaining


DATASET = Entry("adult", adult, paper="Becker, Kohavi, UCI, 1996")
