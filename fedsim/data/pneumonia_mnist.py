"""PneumoniaMNIST: chest X-rays of children."""

from pathlib import Path

import numpy as np

from fedsim.core.catalog import Entry
from fedsim.data.images import label_vector, pixels, stored_images
from fedsim.data.types import Dataset


def pneumonia_mnist(root: Path) -> Dataset:
    """28×28 grey chest X-rays of children, healthy or with pneumonia (MedMNIST).

    Reads `pneumoniamnist.npz`: 4,708 images to train and 624 to test. The 524 that MedMNIST sets
    aside for validation are left out: nothing here selects by them.

    Raises:
        OSError: The file is missing.
        KeyError: It lacks an array.
        ValueError: An array is not what MedMNIST published.
    """
    with np.load(root / "pneumoniamnist.npz") as stored:
        images, labels = stored["train_images"], stored["train_labels"]
        test_images, test_labels = stored["test_images"], stored["test_labels"]
    return Dataset(
        inputs=pixels(stored_images(images, (28, 28))),
        labels=label_vector(labels),
        test_inputs=pixels(stored_images(test_images, (28, 28))),
        test_labels=label_vector(test_labels),
        num_classes=2,
    )


DATASET = Entry("pneumonia-mnist", pneumonia_mnist, paper="Yang et al., MedMNIST v2, 2023")
