"""CIFAR's batches, which are pickles: read without running what a pickle may hold."""

import pickle
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


def read_batches(name: str, root: Path, labels: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images and labels to train with and to test; absent files are downloaded.

    Args:
        name: The class in `torchvision.datasets`, which says what the files are.
        root: The folder.
        labels: The batches' key of the labels.

    Raises:
        OSError: They cannot be downloaded.
        ValueError: A file is no batch.
    """
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    published = getattr(datasets, name)
    folder = root / published.base_folder
    files = [*published.train_list, *published.test_list]
    if not all(check_integrity(folder / file, digest) for file, digest in files):
        download_and_extract_archive(
            published.url, root, filename=published.filename, md5=published.tgz_md5
        )
    halves = []
    for listed in (published.train_list, published.test_list):
        batches = [read_batch(folder / file, labels) for file, _ in listed]
        rows = np.concatenate([rows for rows, _ in batches]).reshape(-1, 3, 32, 32)
        numbers = np.concatenate([numbers for _, numbers in batches])
        halves += [pixels(rows), torch.from_numpy(numbers)]
    return halves[0], halves[1], halves[2], halves[3]
