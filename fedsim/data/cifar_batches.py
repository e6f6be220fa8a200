"""CIFAR's batches, which are pickles: read without running what a pickle may hold."""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.data.images import PIXELS, label_vector, pixels

ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _ArraysOnly(pickle.Unpickler):
    """Numbers, text, lists, dicts and arrays; every other name in a pickle is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return a class or function of `ADMITTED`.

        Raises:
            pickle.UnpicklingError: The pickle names another.
        """
        if (module_name, global_name) not in ADMITTED:
            raise pickle.UnpicklingError(f"the name {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


def read_batch(path: Path, labels: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the rows of bytes and the labels of one batch.

    Args:
        path: The file.
        labels: Its key of them: "labels" or "fine_labels".

    Raises:
        OSError: It is missing.
        ValueError: It holds something else than a batch does.
    """
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="latin1").load()
        rows, numbers = np.asarray(batch["data"]), np.asarray(batch[labels])
    except OSError:
        raise
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise ValueError(f"{path.name}: must be a batch of CIFAR, got {error}") from None
    if rows.dtype != np.uint8 or rows.shape[1:] != (3 * 32 * 32,):
        raise ValueError(f"{path.name}: {PIXELS.rule}, got {rows.dtype} of shape {rows.shape}")
    if len(numbers) != len(rows):
        raise ValueError(f"{path.name}: must hold {len(rows)} labels, got {len(numbers)}")
    return rows, label_vector(numbers).numpy()


@dataclass(frozen=True)
class Batches:
    """The published files of a set, each with its MD5.

    Attributes:
        name: The class in `torchvision.datasets`, which downloads them.
        folder: Where they are, below the set's own.
        labels: The batches' key of the labels: "labels" or "fine_labels".
        train: To train with.
        test: To test.
    """

    name: str
    folder: str
    labels: str
    train: Mapping[str, str]
    test: Mapping[str, str]


def read_batches(published: Batches, root: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images and labels to train with and to test; absent files are downloaded.

    Raises:
        OSError: They cannot be downloaded.
        ValueError: A file is no batch.
    """
    folder = root / published.folder
    files = {**published.train, **published.test}
    if not all(_digest(folder / file) == digest for file, digest in files.items()):
        from torchvision import datasets
        from torchvision.datasets.utils import download_and_extract_archive

        archive = getattr(datasets, published.name)
        download_and_extract_archive(
            archive.url, root, filename=archive.filename, md5=archive.tgz_md5
        )
    halves = []
    for half in (published.train, published.test):
        batches = [read_batch(folder / file, published.labels) for file in half]
        rows = np.concatenate([rows for rows, _ in batches]).reshape(-1, 3, 32, 32)
        numbers = np.concatenate([numbers for _, numbers in batches])
        halves += [pixels(rows), torch.from_numpy(numbers)]
    return halves[0], halves[1], halves[2], halves[3]


def _digest(path: Path) -> str | None:
    """Return a file's MD5; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
