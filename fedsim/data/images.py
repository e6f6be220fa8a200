"""What image sets share: pixels in [0, 1], and labels as int64."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.accepts import Rule

PART = "published images"
PIXELS = Rule(PART, "images", "must be bytes of the set's own height and width")
LABELS = Rule(PART, "labels", "must be whole numbers of the set's own classes, one per image")
CHECKS = (PIXELS, LABELS)


def pixels(stored: Tensor | NDArray[np.uint8]) -> Float[Tensor, "n c h w"]:
    """Return uint8 images of any of the sets' layouts as floats in [0, 1]."""
    images = torch.as_tensor(stored)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:  # CIFAR stores colour last, SVHN first
        images = images.permute(0, 3, 1, 2)
    return images.to(torch.float32, copy=True, memory_format=torch.contiguous_format).div_(255)


def label_vector(stored: NDArray[Any]) -> Int[Tensor, " n"]:
    """Return labels of any integer type, a vector or a column, as a vector of int64.

    Raises:
        ValueError: They are no whole numbers, or several per image.
    """
    if stored.dtype.kind not in "iu" or stored.size != len(stored):
        raise ValueError(LABELS.message(f"{stored.dtype} of shape {stored.shape}"))
    return torch.from_numpy(stored.reshape(-1).astype(np.int64))


def stored_images(stored: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array of images if it is one of bytes with this shape for each.

    Raises:
        ValueError: It is not.
    """
    if stored.dtype != np.uint8 or stored.shape[1:] != shape or not len(stored):
        raise ValueError(PIXELS.message(f"{stored.dtype} of shape {stored.shape}, not {shape}"))
    return stored
