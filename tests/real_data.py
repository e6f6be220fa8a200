"""The real data sets beside the project, for tests that skip where they are absent."""

import atexit
import os
import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch

from fedsim.data import Dataset
from fedsim.data.mnist import mnist as read_mnist

SHARED = Path(os.environ.get("FEDSIM_DATA", Path(__file__).parents[2] / "shared" / "data"))


@lru_cache(maxsize=1)
def mnist() -> Dataset:
    """MNIST."""
    return read_mnist(mnist_root())


def mnist_root() -> Path:
    """The folder that a run reads MNIST from."""
    return unpacked(present("mnist"))


@lru_cache
def unpacked(folder: Path) -> Path:
    """Return a copy of a folder, because torchvision wants to unpack beside the files."""
    root = Path(mkdtemp(prefix="fedsim-"))
    for path in folder.rglob("*.gz"):
        copy = root / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@lru_cache(maxsize=1)
def cifar_part() -> Dataset:
    """The 4,000 + 1,017 images of CIFAR-10 that are there without loss."""
    from PIL import Image

    folder = present("cifar-10") / "lossless"

    def images(names: list[str]) -> torch.Tensor:
        parts = [np.asarray(Image.open(folder / f"{n}.png").convert("RGB")) for n in names]
        pixels = torch.from_numpy(np.concatenate(parts).reshape(-1, 32, 32, 3).copy())
        return pixels.permute(0, 3, 1, 2).float() / 255

    inputs = images([f"cifar10_batch_{k}" for k in range(4)])
    test_inputs = images(["cifar10_test_first1017"])
    stored = np.load(folder / "labels.npz")
    labels, test_labels = (
        torch.from_numpy(stored[name][: len(rows)].astype(np.int64))
        for name, rows in (("y_train", inputs), ("y_test", test_inputs))
    )
    return Dataset(
        inputs=inputs,
        labels=labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
        num_classes=10,
    )


def present(name: str) -> Path:
    """The folder of a data set; the test is skipped where it is absent."""
    if not (SHARED / name).exists():
        pytest.skip(f"no {name} in {SHARED}")
    return SHARED / name
