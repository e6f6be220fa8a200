"""MNIST, with QMNIST's writers where their file lies beside it."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsim.core.catalog import Entry
from fedsim.data.idx import from_idx
from fedsim.data.types import Dataset


def mnist(root: Path) -> Dataset:
    """28×28 grey images of digits; column `writer` where QMNIST's labels lie beside them."""
    dataset = from_idx("MNIST", root)
    path = root / "QMNIST" / "raw" / "qmnist-train-labels-idx2-int.gz"
    if not path.exists():
        return dataset
    return replace(dataset, columns={"writer": _writers(path, dataset.labels.numpy())})


def _writers(path: Path, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return who wrote each training image: the third of QMNIST's eight numbers per image.

    Raises:
        ValueError: The file is of other images; the first number is the label.
    """
    content = gzip.decompress(path.read_bytes())
    size = 12 + 4 * 8 * len(labels)
    if len(content) != size:
        raise ValueError(f"{path.name}: must have {size} bytes, got {len(content)}")
    table = np.frombuffer(content, ">i4", offset=12).reshape(-1, 8)
    if not np.array_equal(table[:, 0], labels):
        raise ValueError(f"{path.name}: must repeat MNIST's labels, got others")
    return table[:, 2].astype(np.int64)


DATASET = Entry("mnist", mnist, paper="LeCun, Bottou, Bengio, Haffner, 1998")
