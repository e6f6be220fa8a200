"""Fashion-MNIST: clothes in the format of MNIST."""

from pathlib import Path

from fedsim.core.catalog import Entry
from fedsim.data.images import from_torchvision
from fedsim.data.types import Dataset


def fashion_mnist(root: Path) -> Dataset:
    """28×28 grey images of clothes (Zalando)."""
    return from_torchvision(
        "FashionMNIST", root, num_classes=10, train={"train": True}, test={"train": False}
    )


DATASET = Entry("fashion-mnist", fashion_mnist, paper="Xiao, Rasul, Vollgraf, 2017")
