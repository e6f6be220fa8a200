"""Tabular sets: a folder comes in, a Dataset of standardised features goes out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedsim.core.errors import ConfigError, nearest
from fedsim.data.types import Attribute, Dataset

if TYPE_CHECKING:
    import pandas as pd

ADULT = [
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

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
HEART = [
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
]
HEART_WORDS = {
    "sex": {0: "female", 1: "male"},
    "cp": {1: "typical angina", 2: "atypical angina", 3: "other pain", 4: "no pain"},
    "fbs": {0: "at most 120 mg/dl", 1: "above 120 mg/dl"},
    "restecg": {0: "normal", 1: "ST-T abnormal", 2: "hypertrophy"},
    "exang": {0: "no", 1: "yes"},
    "slope": {1: "up", 2: "flat", 3: "down"},
    "ca": {0: "0", 1: "1", 2: "2", 3: "3"},
    "thal": {3: "normal", 6: "fixed defect", 7: "reversible defect"},
}


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
    inputs = _left(without, ADULT[:-1])
    train, test = _adult_rows(root)
    numbers = [name for name in inputs if name in train.select_dtypes("number")]
    categories = [name for name in inputs if name not in numbers]
    labels, test_labels = (
        torch.from_numpy(rows.income.astype(str).str.contains(">50K").to_numpy(np.int64))
        for rows in (train, test)
    )
    train_inputs, test_inputs, attributes = _encode(train, test, numbers, categories)
    columns = {name: train[name].to_numpy() for name in ADULT}
    return Dataset(train_inputs, labels, test_inputs, test_labels, 2, columns, attributes)


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
        ValueError: A file holds something else than numbers.
        KeyError: A category has another code than UCI's.
    """
    import pandas as pd

    files = {name: root / f"processed.{name}.data" for name in HOSPITALS}
    read = (
        pd.read_csv(path, names=HEART, na_values="?", dtype=np.float64).assign(hospital=name)
        for name, path in files.items()
    )
    rows = pd.concat(read, ignore_index=True)
    rows[["trestbps", "chol"]] = rows[["trestbps", "chol"]].replace(0, np.nan)
    for name, words in HEART_WORDS.items():
        rows[name] = rows[name].fillna(-1).map({-1: "missing", **words}.__getitem__)
    held_out = rows.groupby("hospital").cumcount().to_numpy() % 5 == 4
    train, test = rows.loc[~held_out], rows.loc[held_out]
    numbers = [name for name in HEART[:-1] if name not in HEART_WORDS]
    labels = torch.from_numpy((rows["num"].astype(np.int64) > 0).to_numpy(np.int64))
    train_inputs, test_inputs, attributes = _encode(train, test, numbers, list(HEART_WORDS))
    return Dataset(
        train_inputs,
        labels[~held_out],
        test_inputs,
        labels[held_out],
        num_classes=2,
        columns={name: train[name].to_numpy() for name in ["hospital", *HEART]},
        attributes=attributes,
    )


def uci_har(root: Path) -> Dataset:
    """Motion of a phone at the waist in 561 features, 6 activities; column `subject`, 21 people.

    Reads `uci_har_train_21subjects.npz`, whose windows stand in the order of time and overlap
    by half. The test rows are therefore the last fifth of each subject's windows of each activity,
    not a stride, which would test on halves of training windows; the one window before them,
    which may share a half with the first of them, is in neither part.

    Raises:
        OSError: The file is missing.
        KeyError: It lacks an array.
    """
    import pandas as pd

    with np.load(root / "uci_har_train_21subjects.npz") as stored:
        features = torch.from_numpy(stored["x_int16"] * np.float32(stored["scale"]))
        subject, activity = stored["subject"].astype(np.int64), stored["y"].astype(np.int64)
    windows = pd.Series(activity).groupby([subject, activity])
    position, first = windows.cumcount().to_numpy(), windows.transform("size").to_numpy() * 4 // 5
    train, test = torch.from_numpy(position < first - 1), torch.from_numpy(position >= first)
    labels = torch.from_numpy(activity)
    return Dataset(
        features[train],
        labels[train],
        features[test],
        labels[test],
        num_classes=6,
        columns={"subject": subject[train.numpy()]},
    )


def _adult_rows(root: Path) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return the training and the test rows of Adult that lack no value."""
    import pandas as pd

    if (root / "adult.data").exists():
        train, test = (
            pd.read_csv(
                root / name, names=ADULT, skiprows=skip, skipinitialspace=True, na_values="?"
            ).dropna()
            for name, skip in (("adult.data", 0), ("adult.test", 1))
        )
        return train, test
    from sklearn.datasets import fetch_openml

    bunch: Any = fetch_openml("adult", version=2, as_frame=True, data_home=root)
    frame: Any = bunch.frame
    frame = frame.rename(columns={"class": "income"})[ADULT].dropna()
    return frame.iloc[: len(frame) * 2 // 3], frame.iloc[len(frame) * 2 // 3 :]


def _left(without: str, names: Sequence[str]) -> list[str]:
    """Return `names` without those that a comma-separated text names."""
    out = {name.strip() for name in without.split(",")} - {""}
    for name in sorted(out - set(names)):
        raise ConfigError(
            f"data.without: must name columns that are inputs, got '{name}'; {nearest(name, names)}"
        )
    left = [name for name in names if name not in out]
    if not left:
        raise ConfigError(f"data.without: must leave an input, got '{without}'")
    return left


def _encode(
    train: "pd.DataFrame", test: "pd.DataFrame", numbers: list[str], categories: list[str]
) -> tuple[Tensor, Tensor, dict[str, Attribute]]:
    """Return the inputs of both, and where they say which category.

    Numbers come first, standardised; a missing one is 0. Then the categories, one-hot; one that no
    training row has is all zeros. Mean, deviation and values are those of the training rows.
    """
    import pandas as pd

    mean, std = train[numbers].mean(), train[numbers].std()
    values = {name: pd.Index(sorted(set(train[name].astype(str)))) for name in categories}

    def inputs(rows: "pd.DataFrame") -> Tensor:
        parts = [((rows[numbers] - mean) / std).fillna(0).to_numpy(np.float32)]
        for name, index in values.items():
            found = index.get_indexer(pd.Index(rows[name].astype(str)))  # -1: there is none
            parts.append((found[:, None] == np.arange(len(index))).astype(np.float32))
        return torch.from_numpy(np.concatenate(parts, axis=1))

    attributes, start = {}, len(numbers)
    for name, index in values.items():
        columns = tuple(range(start, start + len(index)))
        attributes[name] = Attribute(columns, tuple(index), torch.eye(len(index)))
        start += len(index)
    return inputs(train), inputs(test), attributes
