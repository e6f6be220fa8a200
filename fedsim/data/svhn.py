"""SVHN: house numbers from street views."""

from pathlib import Path

from fedsim.core.catalog import Entry
from fedsim.data.images import label_vector, pixels
from fedsim.data.types import Dataset


def svhn(root: Path) -> Dataset:
    """32×32 colour photographs of house numbers."""
    from torchvision.datasets import SVHN

    train, test = (SVHN(str(root), split=half, download=True) for half in ("train", "test"))
    return Dataset(
        inputs=pixels(train.data),
        labels=label_vector(train.labels),
        test_inputs=pixels(test.data),
        test_labels=label_vector(test.labels),
        num_classes=10,
    )


DATASET = Entry("svhn", svhn, paper="Netzer et al., 2011")
