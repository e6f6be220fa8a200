"""MNIST, with QMNIST's writers where their file lies beside it."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsim.core.catalog import Entry
from fedsim.data.images import from_torchvision
from fedsim.data.types import Dataset


def mnist(root: Path) -> Dataset:
    """28×28 grey images of digits; column `writer` where QMNIST's labels lie beside them."""
    dataset = from_torchvision("MNIST", root, train={"train": True}, test={"train": False})
    path = root / "QMNIST" / "raw" / "qmnist-train-labels-idx2-int.gz"
    if not path.exists():
        return dataset
    labels = np.frombuffer(gzip.decompress(path.read_bytes()), ">i4", offset=12)
    return replace(dataset, columns={"writer": labels.reshape(-1, 8)[:, 2].astype(np.int64)})


DATASET = Entry("mnist", mnist, paper="LeCun, Bottou, Bengio, Haffner, 1998")
