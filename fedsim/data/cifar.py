"""CIFAR-10 and CIFAR-100: small colour photographs."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fedsim.core.catalog import Entry
from fedsim.data.cifar_batches import read_batches
from fedsim.data.images import label_vector, pixels
from fedsim.data.types import Dataset


def cifar10(root: Path) -> Dataset:
    """32×32 colour photographs, 10 classes; of a folder `lossless` the part that is there.

    That folder holds the images of a part (4,000 to train, 1,017 to test) as PNG files with an
    image a row, and `labels.npz` with the labels of all.

    Raises:
        OSError: A file of the part is missing or damaged, or the whole cannot be downloaded.
        ValueError: An image of the part has another size, or a file is another than CIFAR's.
    """
    folder = root / "lossless"
    if not folder.exists():
        return _batches("CIFAR10", root, "labels", num_classes=10)
    train = _rows(folder, [f"cifar10_batch_{k}.png" for k in range(4)])
    test = _rows(folder, ["cifar10_test_first1017.png"])
    with np.load(folder / "labels.npz") as stored:
        labels, test_labels = stored["y_train"][: len(train)], stored["y_test"][: len(test)]
    return Dataset(
        inputs=train,
        labels=label_vector(labels),
        test_inputs=test,
        test_labels=label_vector(test_labels),
        num_classes=10,
    )


def cifar100(root: Path) -> Dataset:
    """32×32 colour photographs, 100 classes."""
    return _batches("CIFAR100", root, "fine_labels", num_classes=100)


def _batches(name: str, root: Path, key: str, *, num_classes: int) -> Dataset:
    inputs, labels, test_inputs, test_labels = read_batches(name, root, key)
    return Dataset(
        inputs=inputs,
        labels=labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
        num_classes=num_classes,
    )


def _rows(folder: Path, names: list[str]) -> Float[Tensor, "n 3 32 32"]:
    """Return the images of PNG files whose every row of pixels is a 32×32 image."""
    from PIL import Image

    parts = []
    for name in names:
        with Image.open(folder / name) as picture:
            parts.append(np.asarray(picture.convert("RGB")).reshape(-1, 32, 32, 3))
    return pixels(np.concatenate(parts))


DATASETS = (
    Entry("cifar10", cifar10, paper="Krizhevsky, 2009"),
    Entry("cifar100", cifar100, paper="Krizhevsky, 2009"),
)
