"""Entries of a head's gradient that did not come: pruned by size, or dropped at random."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.labels.gls import most_likely_noise
from adversary.labels.head import Forward, HeadGradient
from adversary.labels.moments import Moments

SIZES = 256  # of entries, at most, where they were rounded to eight bits or fewer
LEVELS = tuple(4.0**-k for k in range(8))  # shares of a pruned update's mean square that is noise
NEAR = (0.8, 0.9, 1.0, 1.12, 1.25)  # times the share of the entries left that few of them show
SMALL = 0.1  # of the median size: what pruning by size leaves none below


def uploaded(head: HeadGradient) -> tuple[Tensor, Tensor | None] | None:
    """Return which entries a pruning client left; None where it seems to have pruned nothing.

    A feature that no example has makes a whole column zero; only zeros elsewhere are pruned. Where
    entries have few sizes, they were rounded, and zero is one of the sizes.
    """
    zero = head.observed == 0
    alive = ~zero.all(dim=0)
    if not alive.any() or float(zero[:, alive].double().mean()) < 0.01:
        return None
    sizes = head.observed[~zero].abs().unique()
    if len(sizes) <= SIZES and len(sizes) < 0.1 * int((~zero).sum()):
        return None
    return ~zero, None if head.observed_bias is None else head.observed_bias != 0


def all_but_the_bias(head: HeadGradient) -> tuple[Tensor, Tensor]:
    """Return the mask of a client that withholds the head's bias alone."""
    weight = torch.ones_like(head.observed, dtype=torch.bool)
    return weight, torch.zeros(len(weight), dtype=torch.bool)


def share_left(head: HeadGradient, mask: Tensor, outputs: Forward) -> float:
    """Return the share of entries that were left at random; 1 where the small ones were dropped.

    Entries that are left at random may be as near to zero as any. Columns of features that no
    auxiliary example has do not count.
    """
    sizes = head.weight[mask].abs()
    if float(sizes.min()) > SMALL * float(sizes.median()):
        return 1.0
    alive = (outputs.features != 0).any(dim=0)
    return float(mask[:, alive].double().mean()) if bool(alive.any()) else 1.0


def left(
    sketch: Float[Tensor, " kept"],
    moments: Moments,
    total: int,
    unit: Float[Tensor, "kept kept"],
    entries: tuple[float, float],
) -> tuple[float, float]:
    """Return what takes entries that were left back to their size, and their noise after it.

    Who drops entries at random may divide the others by the share left, so that their mean stays.

    Args:
        sketch: Of the entries left.
        moments: Of one example per class, in the same sketch.
        total: How many examples there are.
        unit: Covariance of the coordinates under noise of variance 1 on every entry.
        entries: The share that was left at random, and its mean square.
    """
    share, square = entries
    tried, rank = [], int(torch.linalg.matrix_rank(unit, hermitian=True))  # of what entries span
    for scale in (1.0, *(share * near for near in NEAR)) if share < 1 else (1.0,):
        levels = (0.0, *(square * scale**2 * level for level in LEVELS))
        noise, likelihood = most_likely_noise(scale * sketch, moments, total, unit, levels)
        tried.append((likelihood + rank * math.log(scale), scale, noise))
    return max(tried)[1:]
