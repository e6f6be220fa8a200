"""UCI HAR: what a phone at the waist measures of six activities."""

from pathlib import Path

import numpy as np
import torch

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
        inputs=features[train],
        labels=labels[train],
        test_inputs=features[test],
        test_labels=labels[test],
        num_classes=6,
        columns={"subject": subject[train.numpy()]},
    )


DATASET = Entry("uci-har", uci_har, paper="Anguita et al., ESANN 2013")
