"""CIFAR-10 and CIFAR-100: small colour photographs."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fedsim.core.catalog import Entry
from fedsim.data.cifar_batches import Batches, read_batches
from fedsim.data.images import label_vector, pixels
from fedsim.data.types import Dataset

CIFAR10 = Batches(
    name="CIFAR10",
    folder="cifar-10-batches-py",
    labels="labels",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
)
CIFAR100 = Batches(
    name="CIFAR100",
    folder="cifar-100-python",
    labels="fine_labels",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
)


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
        return _dataset(CIFAR10, root, num_classes=10)
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
    return _dataset(CIFAR100, root, num_classes=100)


def _dataset(published: Batches, root: Path, *, num_classes: int) -> Dataset:
    inputs, labels, test_inputs, test_labels = read_batches(published, root)
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
