"""The number of targets of a language model's update, which is not uploaded."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of a head, each a whole number of targets but for noise.

    Attributes:
        share: Estimated share of the targets.
        target, other, noise, errors: What the variance of a row is made of.
        shape: Of the prior of a row's count, which is negative binomial.
        exposure: Of the auxiliary texts.
        grid: Counts that are weighed.
        weights: Logarithm of the prior of each, but for what the total decides; (counts, rows).
        reach: Counts of the grid that are weighed on both sides of an estimate.
        present: Rows that have a target; None where it is not known.
    """

    share: Tensor
    target: Tensor
    other: Tensor
    noise: Tensor
    errors: Tensor
    shape: Tensor
    exposure: float
    grid: Tensor
    weights: Tensor
    reach: int
    present: Tensor | None

    @classmethod
    def of(
        cls, moments: Moments, evidence: Evidence, present: Tensor | None, most: float
    ) -> "_Rows":
        """Return the rows of an update with at most so many targets."""
        lengths, squared, errors = moments.lengths, moments.between.square(), moments.errors
        # Noise of the mean share lengthens it, and the estimated shares are too small by that.
        counted = errors * (1 - SHRINKAGE * errors)
        reliable = (1 - squared.shape[1] * counted / lengths).clamp(min=0.3)
        grid = grid_of(most_of(moments, most + 1)).float()
        shape = moments.rates.float() * moments.exposure
        # A count of the grid stands for those up to the next.
        gaps = torch.cat([grid.diff(), grid.new_ones(1)]).log() - torch.lgamma(grid + 1)
        return cls(
            share=(shares(moments, evidence) / reliable).float(),
            target=(1 / lengths).float(),
            other=(moments.squares * (squared @ moments.spread) / lengths.square()).float(),
            noise=noise_of_shares(moments, evidence).float(),
            errors=errors.float(),
            shape=shape,
            exposure=moments.exposure,
            grid=grid,
            weights=gaps.unsqueeze(1) + torch.lgamma(grid.unsqueeze(1) + shape),
            reach=max(NEAR, reach_of(moments, evidence, most)),
            present=present,
        )

    def log_likelihood(self, totals: Tensor) -> Tensor:
        """Return log p(update | N) of each total, up to a constant."""
        totals, share = totals.unsqueeze(1), self.share
        estimates, odds = totals * share, totals / (totals + self.exposure)
        width, begin = window(estimates, self.grid, self.reach)
        places = torch.arange(width)[:, None, None] + begin
        k = self.grid.take(places)
        weight = self.weights.take(places * len(share) + torch.arange(len(share)))
        variance = k * self.target + k.square().mul_(self.errors * self.target)
        variance += RIDGE * self.target + totals * self.other + totals.square() * self.noise
        log = (estimates - k).square_().div_(variance).add_(variance.log_()).mul_(-0.5)
        log += weight.addcmul_(k, odds.log())
        if self.present is not None:
            log.masked_fill_(self.present & (k == 0), -math.inf)
        each = log.logsumexp(dim=0) + self.shape * (-odds).log1p() + totals.log()
        return each.sum(dim=1)

    def likeliest(self, totals: Tensor, prior: Callable[[Tensor], Tensor]) -> float:
        """Return the likeliest of some totals, under log p(N)."""
        cells = (len(self.share) + 1) * min(len(self.grid), 2 * self.reach + 1)
        parts = totals.split(max(1, CELLS // cells))
        scores = [self.log_likelihood(part) + prior(part) for part in parts]
        return float(totals[torch.cat(scores).argmax()])


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
        places = present.nonzero().squeeze(1)
        moments, evidence, present = moments.at(places), evidence.at(places), present[places]
    low, high = max(1.0, expected - 4 * deviation), expected + 4 * deviation
    rows = _Rows.of(moments, evidence, present, high)
    prior = lambda totals: -0.5 * ((totals - expected) / deviation).square()
    best, step = (low + high) / 2, (high - low) / 2
    for places_beside in STAGES:
        finer = max(1.0, step / places_beside)
        tried = best + finer * torch.arange(-places_beside, places_beside + 1)
        best = rows.likeliest(tried[(tried >= low) & (tried <= high)], prior)
        step = finer
    near = range(max(1, math.floor(best - step)), math.ceil(best + step) + 1)
    return int(rows.likeliest(torch.tensor(near, dtype=torch.float32), prior))
