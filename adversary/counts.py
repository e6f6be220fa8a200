"""Whole numbers of labels out of real-valued evidence; the total is always kept."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def waterfill(level: Float[Tensor, " classes"], step: float, total: int) -> Int[Tensor, " classes"]:
    """Hand out `total` units one by one to the lowest level, which rises by `step` each time.

    In closed form, O(C log C) instead of O(total · C): the units taken are the `total` smallest
    of {level_i + k·step : k ≥ 0}, ties to the lower index.

    Args:
        level: Starting levels.
        step: How much one unit raises a level; with 0 nothing rises, and all levels are taken
            to be equal (the evidence says nothing).
        total: Units to hand out; ≥ 0.
    """
    level = level.double()
    if step <= 0:
        level, step = torch.zeros_like(level), 1.0
    heights = level.sort().values
    # Water level over the k lowest: total·step of water stands on top of them.
    reach = (heights.cumsum(0) + total * step) / torch.arange(1, len(heights) + 1)
    depth = reach[torch.nonzero(reach >= heights).max()]
    counts = ((depth - level) / step).floor().clamp(min=0).long()
    # Rounding down leaves less than one unit a class; float error may have given one too many.
    while (left := total - int(counts.sum())) != 0:
        unit = 1 if left > 0 else -1
        edge = level + (counts if unit > 0 else counts - 1) * step
        edge = edge if unit > 0 else torch.where(counts > 0, -edge, torch.inf)
        chosen = edge.sort(stable=True).indices[: abs(left)]
        counts[chosen] += unit
    return counts


def largest_remainder(
    share: Float[Tensor, " classes"], total: int, order: Int[Tensor, " classes"]
) -> Int[Tensor, " classes"]:
    """Round `share · total` to whole numbers that add up to `total`.

    Args:
        share: Non-negative, adds up to 1.
        total: What the counts add up to.
        order: A permutation of the classes that decides between equal remainders.
    """
    exact = share.double() * total
    counts = exact.floor().long()
    remainder = (exact - counts)[order]
    winners = order[remainder.sort(descending=True, stable=True).indices]
    counts[winners[: total - int(counts.sum())]] += 1
    return counts
