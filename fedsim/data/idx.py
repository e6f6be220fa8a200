"""IDX, the format of MNIST's files: a magic number, the sizes, then a byte for each entry.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", on its file formats.
"""

import gzip
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsim.core.accepts import Rule
from fedsim.data.images import PART, label_vector, pixels
from fedsim.data.types import Dataset

BYTES = 8  # the type of the entries, in the magic number before the number of axes
EXPANSION = 1032  # of DEFLATE, at most
HALVES = ("train", "t10k")
IDX = Rule(PART, "IDX file", "must hold as many bytes as its magic number and sizes state")
CHECKS = (IDX,)


def from_idx(name: str, root: Path) -> Dataset:
    """Load a set of 28×28 grey images of 10 classes; what is absent is downloaded into `root`.

    Args:
        name: The class in `torchvision.datasets`, which downloads it.
        root: The folder of its folder.

    Raises:
        OSError: A file is no file of gzip, or cannot be downloaded.
        ValueError: A file holds something else than such images or labels.
    """
    folder = root / name / "raw"
    images, labels = (
        [folder / f"{half}-{kind}-ubyte" for half in HALVES]
        for kind in ("images-idx3", "labels-idx1")
    )
    if not all(path.exists() or _packed(path).exists() for path in (*images, *labels)):
        import torchvision.datasets

        getattr(torchvision.datasets, name)(str(root), download=True)
    inputs, test_inputs = (pixels(read_idx(path, (28, 28))) for path in images)
    numbers, test_numbers = (label_vector(read_idx(path, ())) for path in labels)
    return Dataset(
        inputs=inputs,
        labels=numbers,
        test_inputs=test_inputs,
        test_labels=test_numbers,
        num_classes=10,
    )


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the entries of an IDX file of bytes; of `path.gz` where there is no `path`.

    Args:
        path: The file.
        shape: Of an entry along the first axis: (28, 28) of images, () of labels.

    Raises:
        OSError: It is missing, or no file of gzip.
        ValueError: It is not of bytes in that shape, or not as long as it states.
    """
    is_packed = not path.exists()
    stored = _packed(path) if is_packed else path
    axes = 1 + len(shape)
    magic = bytes([0, 0, BYTES, axes])
    with gzip.open(stored) if is_packed else stored.open("rb") as file:
        head = file.read(4 + 4 * axes)
        sizes = tuple(int.from_bytes(head[at : at + 4]) for at in range(4, 4 + 4 * axes, 4))
        if not head.startswith(magic) or len(head) < 4 + 4 * axes or sizes[1:] != shape:
            raise ValueError(f"{stored.name}: {IDX.rule}, got the head {head.hex(' ', 4)}")
        expected = math.prod(sizes)
        # No more memory is taken than the file can fill.
        most = stored.stat().st_size * (EXPANSION if is_packed else 1)
        content = file.read(min(expected, most) + 1)
    if len(content) != expected:
        got = f"{len(content)} for {expected}" if len(content) < expected else "more"
        raise ValueError(f"{stored.name}: {IDX.rule}, got {got}")
    return np.frombuffer(content, np.uint8).reshape(sizes).copy()  # PyTorch wants it writable


def _packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")
