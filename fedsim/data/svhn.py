"""SVHN: house numbers from street views."""

from pathlib import Path

from fedsim.core.catalog import Entry
from fedsim.data.images import from_torchvision
from fedsim.data.types import Dataset


def svhn(root: Path) -> Dataset:
    """32×32 colour photographs of house numbers."""
    return from_torchvision(
        "SVHN", root, num_classes=10, train={"split": "train"}, test={"split": "test"}
    )


DATASET = Entry("svhn", svhn, paper="Netzer et al., 2011")
