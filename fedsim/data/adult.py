"""Adult: census records and incomes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedsim.core.catalog import Entry
from fedsim.core.errors import ConfigError, nearest
from fedsim.data.tables import encode
from fedsim.data.types import Dataset

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
]


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
    )


def _labels(rows: "pd.DataFrame") -> Tensor:
    return torch.from_numpy(rows.income.astype(str).str.contains(">50K").to_numpy(np.int64))


def _rows(root: Path) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return the training and the test rows that lack no value."""
    import pandas as pd

    if (root / "adult.data").exists():
        train, test = (
            pd.read_csv(
                root / name, names=COLUMNS, skiprows=skip, skipinitialspace=True, na_values="?"
            ).dropna()
            for name, skip in (("adult.data", 0), ("adult.test", 1))
        )
        return train, test
    from sklearn.datasets import fetch_openml

    bunch: Any = fetch_openml("adult", version=2, as_frame=True, data_home=root)
    frame: Any = bunch.frame
    frame = frame.rename(columns={"class": "income"})[COLUMNS].dropna()
    return frame.iloc[: len(frame) * 2 // 3], frame.iloc[len(frame) * 2 // 3 :]


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
