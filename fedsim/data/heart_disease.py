"""Heart Disease: patients of four hospitals."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedsim.core.catalog import Entry
from fedsim.data.read_table import Column, read_table
from fedsim.data.tables import encode
from fedsim.data.types import Dataset

if TYPE_CHECKING:
    import pandas as pd

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
WORDS = {
    "sex": {0: "female", 1: "male"},
    "cp": {1: "typical angina", 2: "atypical angina", 3: "other pain", 4: "no pain"},
    "fbs": {0: "at most 120 mg/dl", 1: "above 120 mg/dl"},
    "restecg": {0: "normal", 1: "ST-T abnormal", 2: "hypertrophy"},
    "exang": {0: "no", 1: "yes"},
    "slope": {1: "up", 2: "flat", 3: "down"},
    "ca": {0: "0", 1: "1", 2: "2", 3: "3"},
    "thal": {3: "normal", 6: "fixed defect", 7: "reversible defect"},
}
RANGES = {
    **{"age": (0, 150), "trestbps": (0, 400), "chol": (0, 1000), "thalach": (0, 300)},
    **{"oldpeak": (-20, 20), "num": (0, 4)},
}


def _column(name: str) -> Column:
    codes = range(5) if name == "num" else WORDS.get(name, ())
    low, high = RANGES.get(name, (0, 9))
    return Column(name=name, low=low, high=high, choices=frozenset(map(float, codes)))


TABLE = tuple(
    _column(name)
    for name in (
        *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
        *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
    )
)
COLUMNS = [column.name for column in TABLE]


def heart_disease(root: Path) -> Dataset:
    """Heart patients of four hospitals, 920 of them, ill or not; column `hospital` says where.

    Reads UCI's `processed.HOSPITAL.data`. With `partition = "user"`, `users = "hospital"` and four
    clients, each client is a hospital. Every fifth row of each hospital is for testing: the
    Hungarian file is sorted, and a stride tests on all of it.

    No row is left out, though most lack something, and what they lack tells the hospitals apart.
    Numbers are standardised by the training rows, and a missing one is 0, their mean; so is a
    blood pressure or cholesterol of 0, which stands for a missing one. Categories are one-hot, with
    `missing` as one of them where a training row lacks them; so is `ca`, a count up to 3.

    Raises:
        OSError: A file is missing.
        ValueError: A file is another table, or a category has another code than UCI's.
    """
    rows = _rows(root)
    held_out = rows.groupby("hospital").cumcount().to_numpy() % 5 == 4
    train, test = rows.loc[~held_out], rows.loc[held_out]
    numbers = [name for name in COLUMNS[:-1] if name not in WORDS]
    labels = torch.from_numpy((rows["num"].astype(np.int64) > 0).to_numpy(np.int64))
    encoded = encode(train, test, numbers=numbers, categories=list(WORDS))
    return Dataset(
        inputs=encoded.inputs,
        labels=labels[~held_out],
        test_inputs=encoded.test_inputs,
        test_labels=labels[held_out],
        num_classes=2,
        columns={name: train[name].to_numpy() for name in ["hospital", *COLUMNS]},
        attributes=encoded.attributes,
        numbers=encoded.numbers,
    )


def _rows(root: Path) -> "pd.DataFrame":
    """Return the patients of all hospitals, with words for codes and NaN for missing numbers."""
    import pandas as pd

    tables = (
        read_table(root / f"processed.{name}.data", TABLE).astype(np.float64).assign(hospital=name)
        for name in HOSPITALS
    )
    rows = pd.concat(tables, ignore_index=True)
    rows[["trestbps", "chol"]] = rows[["trestbps", "chol"]].replace(0, np.nan)
    for name, words in WORDS.items():
        rows[name] = rows[name].fillna(-1).map({-1: "missing", **words}.__getitem__)
    return rows


DATASET = Entry("heart-disease", heart_disease, paper="Detrano et al., 1989")
