"""What a defense costs: how far the upload is from what would have been uploaded without it."""

import math

import torch
from torch import Tensor

from fedsim.core.params import norm, subtract
from fedsim.core.types import Params

SYMBOLS = 256  # most different values for which a table of values is worth its place


def fidelity(defended: Params, plain: Params) -> dict[str, float]:
    """Return what a defense left of an update.

    Args:
        defended: The update that is uploaded.
        plain: The update without the defense.

    Returns:
        `update_cosine`: cosine of the angle between them; 0 where one of them is nothing.
        `update_snr_db`: 10·log10 of ‖plain‖² / ‖defended − plain‖², in decibels; left out where
        they are equal or `plain` is nothing.
        `upload_bytes`: of the defended update, as `encoded_bytes` counts them.
    """
    lengths = float(norm(defended)) * float(norm(plain))
    products = [float((v.double() * plain[n].double()).sum()) for n, v in defended.items()]
    metrics = {
        "update_cosine": sum(products) / lengths if lengths else 0.0,
        "upload_bytes": float(encoded_bytes(defended)),
    }
    signal, noise = float(norm(plain)), float(norm(subtract(defended, plain)))
    if signal and noise:
        metrics["update_snr_db"] = 20 * math.log10(signal / noise)
    return metrics


def encoded_bytes(update: Params) -> int:
    """Return how many bytes an update needs, each tensor in its shortest plain encoding.

    Dense; or the positions (4 bytes each) and values of what is not zero; or, for few different
    values, a table of them and as few bits per entry as tell them apart. Flower itself sends
    every array dense, so that this is what a format of one's own would save.
    """
    return sum(_encoded(value) for value in update.values())


def _encoded(value: Tensor) -> int:
    size, width = value.numel(), value.element_size()
    sparse = int(torch.count_nonzero(value)) * (4 + width)
    ways = [size * width, sparse]
    flat = value.flatten()
    if len(flat[:1024].unique()) <= SYMBOLS:  # else there is no need to sort everything
        symbols = len(flat.unique())
        if symbols <= SYMBOLS:
            bits = max(1, math.ceil(math.log2(symbols))) if symbols else 0
            ways.append(symbols * width + math.ceil(size * bits / 8))
    return min(ways)
