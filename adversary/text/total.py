"""The number of targets of a language model's update, which is not uploaded."""

import math

import torch
from torch import Tensor

from adversary.text.moments import SHRINKAGE, Moments
from adversary.text.row_bayes import (
    CELLS,
    RIDGE,
    Evidence,
    grid_of,
    most_of,
    noise_of_shares,
    reach_of,
    shares,
    window,
)

NEAR = 3  # counts of the grid that are weighed on both sides of an estimate, at least
STAGES = (8, 6)  # totals on both sides of the best one, in ever finer steps


def likeliest_total(moments: Moments, evidence: Evidence, expected: float, deviation: float) -> int:
    """Return the number of targets N under which rows look most like whole numbers of targets.

    Each row's estimated share of the targets times N is a whole number k but for noise, whose prior
    is negative binomial; a normal prior of N comes from the lengths of auxiliary texts.
    Where the set of targets is known, its rows alone are looked at: what another row shows is the
    spread of its token's probabilities, which auxiliary text tells less well.

    Args:
        moments: Of the model sent.
        evidence: Of the update.
        expected: Mean of N before the update is looked at.
        deviation: Its standard deviation.
    """
    present = evidence.present
    if present is not None and not evidence.hidden:
        rows = present.nonzero().squeeze(1)
        moments, evidence, present = moments.at(rows), evidence.at(rows), present[rows]
    lengths, squared, errors = moments.lengths, moments.between.square(), moments.errors
    # Noise of the mean share lengthens it, and the estimated shares are too small by that.
    counted = errors * (1 - SHRINKAGE * errors)
    reliable = (1 - squared.shape[1] * counted / lengths).clamp(min=0.3)
    share = shares(moments, evidence) / reliable
    other = moments.squares * (squared @ moments.spread) / lengths.square()
    noise = noise_of_shares(moments, evidence)
    reach = max(NEAR, reach_of(moments, evidence, expected + 4 * deviation))
    own, other, noise, share, errors, rates = (
        it.float() for it in (1 / lengths, other, noise, share, errors, moments.rates)
    )

    low, high = max(1.0, expected - 4 * deviation), expected + 4 * deviation
    grid = grid_of(most_of(moments, high + 1)).float()
    shape = rates * moments.exposure
    # A count of the grid stands for those up to the next.
    gaps = torch.cat([grid.diff(), grid.new_ones(1)]).log() - torch.lgamma(grid + 1)
    weights = gaps.unsqueeze(1) + torch.lgamma(grid.unsqueeze(1) + shape)

    def score(totals: Tensor) -> Tensor:
        totals = totals.unsqueeze(1)
        estimates, odds = totals * share, totals / (totals + moments.exposure)
        width, begin = window(estimates, grid, reach)
        places = torch.arange(width)[:, None, None] + begin
        k, weight = grid.take(places), weights.take(places * len(share) + torch.arange(len(share)))
        variance = k * own + k.square().mul_(errors * own)
        variance += RIDGE * own + totals * other + totals.square() * noise
        log = (estimates - k).square_().div_(variance).add_(variance.log_()).mul_(-0.5)
        log += weight.addcmul_(k, odds.log())
        if present is not None:
            log.masked_fill_(present & (k == 0), -math.inf)
        each = log.logsumexp(dim=0) + shape * (-odds).log1p() + totals.log()
        return each.sum(dim=1) - 0.5 * ((totals.squeeze(1) - expected) / deviation).square()

    def best_of(totals: Tensor) -> float:
        cells = (len(share) + 1) * min(len(grid), 2 * reach + 1)
        scores = [score(part) for part in totals.split(max(1, CELLS // cells))]
        return float(totals[torch.cat(scores).argmax()])

    best, step = (low + high) / 2, (high - low) / 2
    for places in STAGES:
        finer = max(1.0, step / places)
        tried = best + finer * torch.arange(-places, places + 1)
        best, step = best_of(tried[(tried >= low) & (tried <= high)]), finer
    near = range(max(1, math.floor(best - step)), math.ceil(best + step) + 1)
    return int(best_of(torch.tensor(near, dtype=torch.float32)))
