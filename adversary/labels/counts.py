"""Whole numbers of labels out of real-valued evidence; the total is always kept."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor


def waterfill(
    level: Float[Tensor, "n classes"], step: Float[Tensor, " n"], total: Int[Tensor, " n"]
) -> Int[Tensor, "n classes"]:
    """Hand out units one by one to the lowest level of each row, which rises by a step each time.

    In closed form, O(C log C) instead of O(total · C): the units taken are the `total` smallest
    of {level_i + k·step : k ≥ 0}, ties to the lower index.

    Args:
        level: Starting levels.
        step: How much one unit raises a level of the row; with 0 nothing rises, and all levels are
            taken to be equal (the evidence says nothing).
        total: Units to hand out in each row; ≥ 0.

    Raises:
        ValueError: A level is not finite.
    """
    rises = (step > 0).unsqueeze(1)
    level = level.double().where(rises, 0.0)
    step = step.double().unsqueeze(1).where(rises, 1.0)
    total = total.unsqueeze(1)
    heights = level.sort(dim=1).values
    # Water level over the k lowest: total·step of water stands on top of them.
    reach = (heights.cumsum(1) + total * step) / torch.arange(1, heights.shape[1] + 1)
    if not torch.isfinite(reach).all():
        raise ValueError("level: must be finite, got NaN or infinity")
    last = ((reach >= heights) * torch.arange(heights.shape[1])).amax(dim=1, keepdim=True)
    counts = ((reach.gather(1, last) - level) / step).floor().clamp(min=0).long()
    return _settled(counts, level, step, total)


def _settled(
    counts: Int[Tensor, "n classes"],
    level: Float[Tensor, "n classes"],
    step: Float[Tensor, "n 1"],
    total: Int[Tensor, "n 1"],
) -> Int[Tensor, "n classes"]:
    """Return counts that add up to `total`: units are added to the lowest, or taken from the top.

    Rounding down leaves less than one unit a class; float error may have given one too many.
    """
    places, rise = torch.arange(counts.shape[1]), step.float()
    while bool((left := total - counts.sum(dim=1, keepdim=True)).any()):
        top = level + (counts - 1) * rise
        edge = torch.where(
            left > 0, level + counts * rise, torch.where(counts > 0, -top, torch.inf)
        )
        order = edge.sort(dim=1, stable=True).indices
        counts = counts.scatter_add(1, order, left.sign() * (places < left.abs()))
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


def round_rows(
    estimate: Float[Tensor, "n classes"], total: Int[Tensor, " n"]
) -> Int[Tensor, "n classes"]:
    """Return what `round_counts` returns for each row.

    Args:
        estimate: Real-valued counts.
        total: What each row adds up to.
    """
    share = estimate.double().clamp(min=0)
    share = share.where(share.any(dim=1, keepdim=True), 1.0)
    order = share.sort(dim=1, descending=True, stable=True).indices
    exact = share / share.sum(dim=1, keepdim=True) * total.unsqueeze(1)
    return largest_remainders(exact, total, order)


def largest_remainders(
    exact: Float[Tensor, "n classes"], total: Int[Tensor, " n"], order: Int[Tensor, "n classes"]
) -> Int[Tensor, "n classes"]:
    """Return what `largest_remainder` returns for each row.

    Args:
        exact: Real-valued counts, not negative, float64; each row adds up to its total.
        total: What each row of counts adds up to.
        order: A permutation of the classes for each row.
    """
    counts = exact.floor().long()
    remainder = (exact - counts).gather(1, order)
    winners = order.gather(1, remainder.sort(dim=1, descending=True, stable=True).indices)
    left = (total - counts.sum(dim=1)).unsqueeze(1)
    return counts.scatter_add(1, winners, (torch.arange(counts.shape[1]) < left).long())


def in_turn(order: Int[Tensor, " chosen"], total: int, num_classes: int) -> Int[Tensor, " classes"]:
    """Hand out `total` units to the classes in `order`, one each, again and again."""
    rounds, left = divmod(total, len(order))
    counts = torch.zeros(num_classes, dtype=torch.long)
    counts[order] = rounds
    counts[order[:left]] += 1
    return counts
