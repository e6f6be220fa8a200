"""UCI HAR: what a phone at the waist measures of six activities."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.core.catalog import Entry
from fedsim.data.types import Dataset


def uci_har(root: Path) -> Dataset:
    """Motion of a phone at the waist in 561 features, 6 activities; column `subject`, 21 people.

    Reads `uci_har_train_21subjects.npz`, whose windows stand in the order of time and overlap
    by half. The test rows are therefore the last fifth of each subject's windows of each activity,
    not a stride, which would test on halves of training windows; the one window before them,
    which may share a half with the first of them, is in neither part.

    Raises:
        OSError: The file is missing.
        KeyError: It lacks an array.
        ValueError: An array is not what UCI published.
    """
    import pandas as pd

    with np.load(root / "uci_har_train_21subjects.npz") as stored:
        features, scale = stored["x_int16"], stored["scale"]
        subject, activity = stored["subject"], stored["y"]
    _check(features, scale, subject, activity)
    features = torch.from_numpy(features * np.float32(scale))
    subject, activity = subject.astype(np.int64), activity.astype(np.int64)
    windows = pd.Series(activity).groupby([subject, activity])
    position, first = windows.cumcount().to_numpy(), windows.transform("size").to_numpy() * 4 // 5
    train, test = torch.from_numpy(position < first - 1), torch.from_numpy(position >= first)
    labels = torch.from_numpy(activity)
    return Dataset(
        inputs=features[train],
        labels=labels[train],
        test_inputs=features[test],
        test_labels=labels[test],
        num_classes=6,
        columns={"subject": subject[train.numpy()]},
    )


def _check(
    features: NDArray[Any], scale: NDArray[Any], subject: NDArray[Any], activity: NDArray[Any]
) -> None:
    """Refuse other arrays than the published ones.

    Raises:
        ValueError: A type, shape or value is another.
    """
    if features.dtype != np.int16 or features.ndim != 2 or not features.size:
        raise ValueError(f"x_int16: must be rows of int16, got {features.dtype}{features.shape}")
    if scale.size != 1 or scale.dtype.kind != "f" or not 0 < float(scale) < np.inf:
        raise ValueError(f"scale: must be a positive number, got {scale}")
    for name, values in (("subject", subject), ("y", activity)):
        if values.dtype.kind not in "iu" or values.shape != (len(features),):
            raise ValueError(
                f"{name}: must be a whole number for each of {len(features)} rows, "
                f"got {values.dtype}{values.shape}"
            )
    if activity.min() < 0 or activity.max() > 5:
        raise ValueError(f"y: must be from 0 to 5, got {activity.min()} to {activity.max()}")


DATASET = Entry("uci-har", uci_har, paper="Anguita et al., ESANN 2013")
