"""Fashion-MNIST: clothes in the format of MNIST."""

from pathlib import Path

from fedsim.core.catalog import Entry
from fedsim.data.idx import from_idx
from fedsim.data.types import Dataset


def fashion_mnist(root: Path) -> Dataset:
    """28×28 grey images of clothes (Zalando)."""
    return from_idx("FashionMNIST", root)


DATASET = Entry("fashion-mnist", fashion_mnist, paper="Xiao, Rasul, Vollgraf, 2017")
