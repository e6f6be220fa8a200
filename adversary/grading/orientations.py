"""Feature similarity of pictures: histograms of oriented gradients (HOG), which need no weights.

N. Dalal, B. Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005. PSNR counts
pixels; this compares edges: where they are, and which way they run. Brightness does not matter, and
contrast does little. It sees no colour.

Differs from the paper: cells divide the picture into at most 8×8, whatever its size; directions are
signed, so that a negative is not its original; contrast is normalised in units of `FLAT`, so that
the noise of a flat place is not taken for an edge; and each histogram is taken less its mean, so
that noise, which has all directions alike, has nothing in common with edges.
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

CELLS = 8  # in a direction, of at least two pixels each
ORIENTATIONS = 8  # over 360°
CLIP = 0.2  # the paper's L2-Hys
FLAT = 0.02  # mean length of a cell's gradients, of pixels in [0, 1], below which it is flat


def feature_similarity(
    a: Shaped[Tensor, "n channels height width"], b: Shaped[Tensor, "n channels height width"]
) -> Float[Tensor, " n"]:
    """Return 1 − ‖f(a) − f(b)‖² / (‖f(a)‖² + ‖f(b)‖²) of each pair's features f, float64.

    Args:
        a: Pictures, pixels in [0, 1].
        b: What each is compared with.

    Returns:
        In [−1, 1]: 1 exactly for equal pairs, 0 of edges and none; 1 where both have none.

    Raises:
        ValueError: The shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"b: must have the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
    ours, theirs = features(a), features(b)
    energy = ours.square().sum(dim=1) + theirs.square().sum(dim=1)
    distance = (ours - theirs).square().sum(dim=1)
    return 1 - distance / energy.where(energy > 0, 1.0)


def features(pictures: Shaped[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
    """Return the features of pictures whose pixels are in [0, 1], float64."""
    cells = _cells(pictures.double())
    rows, columns = cells.shape[-2:]
    size = min(2, rows), min(2, columns)
    blocks = functional.unfold(cells, size).transpose(1, 2)  # (n, blocks, orientations of cells)
    clipped = _normalised(blocks, FLAT).clamp(max=CLIP)
    histograms = _normalised(clipped, CLIP / 10).unflatten(2, (ORIENTATIONS, -1))
    return (histograms - histograms.mean(dim=2, keepdim=True)).flatten(1)


def _cells(pictures: Float[Tensor, "n channels height width"]) -> Tensor:
    """Return the histogram of each cell, (n, orientations, rows, columns)."""
    padded = functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    length = (across.square() + down.square()).sqrt()
    strongest = length.argmax(dim=1, keepdim=True)  # the channel, at each pixel
    across, down, length = (it.gather(1, strongest) for it in (across, down, length))
    place = torch.atan2(down, across).remainder(2 * math.pi) * (ORIENTATIONS / (2 * math.pi))
    centres = torch.arange(ORIENTATIONS, dtype=torch.float64).view(1, -1, 1, 1)
    apart = (place - centres).abs()
    apart = torch.minimum(apart, ORIENTATIONS - apart)  # 360° is 0° again
    votes = (1 - apart).clamp(min=0) * length
    grid = [max(1, min(CELLS, side // 2)) for side in pictures.shape[-2:]]
    return functional.adaptive_avg_pool2d(votes, (grid[0], grid[1]))


def _normalised(blocks: Tensor, flat: float) -> Tensor:
    return blocks / (blocks.square().sum(dim=-1, keepdim=True) + flat**2).sqrt()
