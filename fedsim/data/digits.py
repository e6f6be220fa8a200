"""The digits of scikit-learn: embedded there, so that a first run needs no network."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from fedsim.core.catalog import Entry
from fedsim.core.errors import ConfigError
from fedsim.data.types import Dataset


def digits(root: Path) -> Dataset:  # noqa: ARG001
    """8×8 grey images of digits, 1,797 of them, embedded in scikit-learn: works offline.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    # The file itself: importing sklearn.datasets costs 2.5 CPU-seconds in every process.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ConfigError("data.name: 'digits' needs scikit-learn, which is not installed")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    inputs, labels = table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].long()
    # Scans of one writer stand together in the file: a stride tests on all of them.
    test = torch.arange(len(labels)) % 5 == 4
    return Dataset(
        inputs=inputs[~test],
        labels=labels[~test],
        test_inputs=inputs[test],
        test_labels=labels[test],
        num_classes=10,
    )


DATASET = Entry("digits", digits)
