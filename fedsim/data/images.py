"""Image sets: a folder comes in, a Dataset of pixels in [0, 1] goes out."""

import gzip
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.errors import ConfigError
from fedsim.data.types import Dataset


def digits(root: Path) -> Dataset:  # noqa: ARG001
    """8×8 grey images of digits, 1,797 of them, embedded in scikit-learn: works offline."""
    # The file itself: importing sklearn.datasets costs 2.5 CPU-seconds in every process.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ConfigError("data.name: 'digits' must find scikit-learn installed, got none")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    inputs, labels = table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].long()
    # Scans of one writer stand together in the file: a stride tests on all of them.
    test = torch.arange(len(labels)) % 5 == 4
    return Dataset(inputs[~test], labels[~test], inputs[test], labels[test], num_classes=10)


def mnist(root: Path) -> Dataset:
    """28×28 grey images of digits; column `writer` where QMNIST's labels lie beside them."""
    dataset = _torchvision("MNIST", root, train={"train": True}, test={"train": False})
    path = root / "QMNIST" / "raw" / "qmnist-train-labels-idx2-int.gz"
    if not path.exists():
        return dataset
    labels = np.frombuffer(gzip.decompress(path.read_bytes()), ">i4", offset=12)
    return replace(dataset, columns={"writer": labels.reshape(-1, 8)[:, 2].astype(np.int64)})


def fashion_mnist(root: Path) -> Dataset:
    """28×28 grey images of clothes (Zalando)."""
    return _torchvision("FashionMNIST", root, train={"train": True}, test={"train": False})


def cifar10(root: Path) -> Dataset:
    """32×32 colour photographs, 10 classes; of a folder `lossless` the part that is there.

    That folder holds the images of a part (4,000 to train, 1,017 to test) as PNG files with an
    image a row, and `labels.npz` with the labels of all.

    Raises:
        OSError: A file of the part is missing or damaged, or the whole cannot be downloaded.
        ValueError: An image of the part has another size.
    """
    folder = root / "lossless"
    if not folder.exists():
        return _torchvision("CIFAR10", root, train={"train": True}, test={"train": False})
    train = _rows(folder, [f"cifar10_batch_{k}.png" for k in range(4)])
    test = _rows(folder, ["cifar10_test_first1017.png"])
    with np.load(folder / "labels.npz") as stored:
        labels, test_labels = stored["y_train"][: len(train)], stored["y_test"][: len(test)]
    return Dataset(train, _labels(labels), test, _labels(test_labels), num_classes=10)


def cifar100(root: Path) -> Dataset:
    """32×32 colour photographs, 100 classes."""
    return _torchvision("CIFAR100", root, train={"train": True}, test={"train": False})


def svhn(root: Path) -> Dataset:
    """32×32 colour photographs of house numbers."""
    return _torchvision("SVHN", root, train={"split": "train"}, test={"split": "test"})


def olivetti(root: Path) -> Dataset:
    """64×64 grey photographs of 40 faces, 10 of each; labels and column `person` say whose.

    Reads `olivettifaces.mat` (AT&T Laboratories Cambridge) and tests on the last two of each.

    Raises:
        OSError: The file is missing or cut short.
        ValueError: It is no MATLAB file of 64×64 images.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = root / "olivettifaces.mat"
    try:
        faces = loadmat(path, variable_names=["faces"])["faces"]
    except (KeyError, MatReadError) as error:
        raise ValueError(f"{path.name}: must be a MATLAB file with faces, got {error}") from None
    # MATLAB stores an image a column, and that column by column.
    images = _pixels(faces.T.reshape(-1, 64, 64).transpose(0, 2, 1))
    row = torch.arange(len(images))
    person, test = row // 10, row % 10 >= 8
    return Dataset(
        images[~test],
        person[~test],
        images[test],
        person[test],
        num_classes=int(person.max()) + 1,
        columns={"person": person[~test].numpy()},
    )


def pneumonia_mnist(root: Path) -> Dataset:
    """28×28 grey chest X-rays of children, healthy or with pneumonia (MedMNIST).

    Reads `pneumoniamnist.npz`: 4,708 images to train and 624 to test. The 524 that MedMNIST sets
    aside for validation are left out: nothing here selects by them.

    Raises:
        OSError: The file is missing.
        KeyError: It lacks an array.
    """
    with np.load(root / "pneumoniamnist.npz") as stored:
        images, labels = stored["train_images"], stored["train_labels"]
        test_images, test_labels = stored["test_images"], stored["test_labels"]
    return Dataset(
        _pixels(images), _labels(labels), _pixels(test_images), _labels(test_labels), num_classes=2
    )


def _torchvision(name: str, root: Path, *, train: dict, test: dict) -> Dataset:
    """Load a torchvision image set, downloading it into `root` where it is not there yet."""
    import torchvision.datasets

    loader = getattr(torchvision.datasets, name)
    halves = []
    for options in (train, test):
        images = loader(str(root), download=True, **options)
        labels = images.labels if name == "SVHN" else images.targets
        halves += [_pixels(images.data), torch.as_tensor(labels, dtype=torch.int64)]
    return Dataset(*halves, num_classes=int(halves[1].max()) + 1)


def _rows(folder: Path, names: list[str]) -> Float[Tensor, "n 3 32 32"]:
    """Return the images of PNG files whose every row of pixels is a 32×32 image."""
    from PIL import Image

    parts = []
    for name in names:
        with Image.open(folder / name) as picture:
            parts.append(np.asarray(picture.convert("RGB")).reshape(-1, 32, 32, 3))
    return _pixels(np.concatenate(parts))


def _labels(stored: NDArray[Any]) -> Tensor:
    """Return labels stored in any integer type and any shape as a vector of int64."""
    return torch.from_numpy(stored.reshape(-1).astype(np.int64))


def _pixels(data: Tensor | NDArray[np.uint8]) -> Float[Tensor, "n c h w"]:
    """Return uint8 images of any of the sets' layouts as floats in [0, 1]."""
    images = torch.as_tensor(data)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:  # CIFAR stores colour last, SVHN first
        images = images.permute(0, 3, 1, 2)
    return images.to(torch.float32, copy=True, memory_format=torch.contiguous_format).div_(255)
