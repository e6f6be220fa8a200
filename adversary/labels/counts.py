"""Whole numbers of labels out of real-valued evidence; the total is always kept."""

from functools import lru_cache

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


@lru_cache(maxsize=4096)
def expected_overlap(total: int, classes: int) -> Float[Tensor, " counts"]:
    """Return E min(n, K) for n = 0 … total, where K of `total` random labels are of one class.

    K is binomial with chance 1/C. The chance level of ASR is Σ_i E min(n_i, K) / N.
    """
    k = torch.arange(total + 1, dtype=torch.float64)
    n = torch.tensor(float(total), dtype=torch.float64)
    log_choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    rate = torch.tensor(1 / classes, dtype=torch.float64)
    mass = (log_choose + torch.xlogy(k, rate) + torch.xlogy(n - k, 1 - rate)).exp()
    more = 1 - mass.cumsum(0)  # P(K > k); E min(n, K) = Σ_{k < n} P(K > k)
    return torch.cat([torch.zeros(1, dtype=torch.float64), more[:-1].cumsum(0)])


def round_counts(estimate: Float[Tensor, " classes"], total: int) -> Int[Tensor, " classes"]:
    """Turn real-valued counts into whole ones that add up to `total`.

    Negative ones are taken as 0 and the rest are scaled to `total`; of equal remainders the larger
    count wins. Where nothing is left, the labels are spread evenly.
    """
    share = estimate.double().clamp(min=0)
    if not share.any():
        share = torch.ones_like(share)
    order = share.sort(descending=True, stable=True).indices
    return largest_remainder(share / share.sum(), total, order)


def in_turn(order: Int[Tensor, " chosen"], total: int, num_classes: int) -> Int[Tensor, " classes"]:
    """Hand out `total` units to the classes in `order`, one each, again and again."""
    rounds, left = divmod(total, len(order))
    counts = torch.zeros(num_classes, dtype=torch.long)
    counts[order] = rounds
    counts[order[:left]] += 1
    return counts
