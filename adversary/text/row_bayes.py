"""How often each token is a target, row by row of the head's gradient.

The head's gradient of token v is G_v = (1/N)·[Σ (p_v − 1)h over targets v + Σ p_v h over others].
Given how many of N targets are v, a row is taken to be normal, with moments from auxiliary text;
rows are independent given the counts, so that the cost grows with V·d and not with (V·d)².
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adversary.text.moments import Moments

RIDGE = 0.2  # variance of a whitened coordinate that no auxiliary target shows
GROWTH = 1.15  # from one count to the next, where counts are large
NEAR = 5  # counts of the grid that are weighed on both sides of a row's estimate, at least
WIDE = 7  # the same after several local steps
SPREAD = 3.0  # or so many standard deviations of a defense's noise
CELLS = 1 << 19  # numbers that are held at a time
SPARE = 64  # rows that are looked at besides


@dataclass(frozen=True)
class Evidence:
    """What one update says of tokens.

    Attributes:
        gradient: Of the head's weight, of the mean loss over targets, shape (V, width), float64.
        present: Tokens that are targets; None where that is not known.
        outside: Expected count of each token that is not present, shape (V,): the ends of texts,
            and last tokens of texts that were cut. None without `present`.
        noise: Variance of the noise on each entry of the gradient.
        hidden: Whether noise may hide targets from `present`.
    """

    gradient: Float[Tensor, "vocabulary width"]
    present: Bool[Tensor, " vocabulary"] | None = None
    outside: Float[Tensor, " vocabulary"] | None = None
    noise: float = 0.0
    hidden: bool = False

    def at(self, rows: Int[Tensor, " rows"]) -> "Evidence":
        """Return what it says of some tokens."""
        present = None if self.present is None else self.present[rows]
        outside = None if self.outside is None else self.outside[rows]
        return replace(self, gradient=self.gradient[rows], present=present, outside=outside)


def noise_variance(gradient: Float[Tensor, "vocabulary width"]) -> float:
    """Return the variance of the noise on each entry of a head's gradient.

    Σ_v (p_v − y_v) = 0 for every target, so that the columns add up to zero without noise.
    """
    return float(gradient.double().sum(dim=0).square().mean()) / len(gradient)


@dataclass(frozen=True)
class Counts:
    """How often each token is a target.

    Attributes:
        each: Shape (V,); adds up to the total, but where fewer are possible.
        misfit: Mean squared distance of rows to their best count in standard deviations: about 1
            where the moments are those of the model trained, never below.
    """

    each: Int[Tensor, " vocabulary"]
    misfit: float


def counts(moments: Moments, evidence: Evidence, total: int, *, near: int = NEAR) -> Counts:
    """Return how often each token is a target.

    Of all (token, one more of it), those `total` with the largest gain in log-posterior are taken.

    Args:
        moments: Of the model sent.
        evidence: Of the update.
        total: Number of targets N, at least 0.
        near: How many counts of the grid on both sides of a row's estimate are weighed, at least.
    """
    present, possible = evidence.present, torch.ones(len(moments.rates), dtype=torch.bool)
    outside = torch.zeros_like(moments.rates) if evidence.outside is None else evidence.outside
    if present is not None:
        possible = present | (outside > 0)
    every = grid_of(min(total, most_of(moments, total)))
    near = max(near, reach_of(moments, evidence, total))
    width, begin = window(total * shares(moments, evidence), every, near)
    grid = every.take(begin.unsqueeze(1) + torch.arange(width))
    fits, misfit = _likelihoods(moments, evidence, total, grid, possible)
    prior = _log_prior(moments, grid, total)
    if present is not None:
        few = outside.where(possible, 1.0).log().unsqueeze(1)
        prior = prior.where(present.unsqueeze(1), grid * few - torch.lgamma(grid + 1))
    widths = torch.cat([grid[:, :1], grid.diff(dim=1)], dim=1)
    gains = (fits / misfit + prior).diff(dim=1) / widths[:, 1:]
    widths[~possible] = 0
    if present is not None and gains.shape[1]:
        gains[present & (grid[:, 0] == 0), 0] = math.inf
    first = torch.full((len(gains), 1), math.inf, dtype=gains.dtype)
    gains = torch.cat([first, gains], dim=1).cummin(dim=1).values
    return Counts(_taken(gains, widths.long(), total), misfit)


def _log_prior(
    moments: Moments, k: Float[Tensor, "rows counts"], total: float
) -> Float[Tensor, "rows counts"]:
    """Return the log-probability of counts among so many targets, but for a constant of each row.

    A token's rate is uncertain, as far as auxiliary targets show it: counts are negative binomial.
    """
    shape = (moments.rates * moments.exposure).unsqueeze(1)
    odds = total / (total + moments.exposure)
    return torch.lgamma(k + shape) - torch.lgamma(k + 1) + k * math.log(max(odds, 1e-300))


def grid_of(most: int) -> Float[Tensor, " counts"]:
    """Return the counts that rows are weighed at: all small ones, and ever fewer large ones."""
    counts = [0]
    while counts[-1] < most:
        counts.append(min(most, max(counts[-1] + 1, round(counts[-1] * GROWTH))))
    return torch.tensor(counts, dtype=torch.float64)


def most_of(moments: Moments, total: float) -> int:
    """Return the largest count that is weighed."""
    return int(4 + 6 * total * largest(moments.rates))


def window(
    estimates: Float[Tensor, "*rows"], grid: Float[Tensor, " counts"], near: int
) -> tuple[int, Int[Tensor, "*rows"]]:
    """Return how many counts of a grid are near estimated ones, and the place of their first.

    Args:
        estimates: Of counts.
        grid: Counts, ascending.
        near: How many on both sides.
    """
    width = min(len(grid), 2 * near + 1)
    middle = torch.searchsorted(grid, estimates)
    return width, (middle - near).clamp(min=0, max=len(grid) - width)


def reach_of(moments: Moments, evidence: Evidence, total: float) -> int:
    """Return how many counts on both sides of an estimate are likely enough, by the noise."""
    return math.ceil(SPREAD * total * largest(noise_of_shares(moments, evidence)) ** 0.5)


def noise_of_shares(moments: Moments, evidence: Evidence) -> Float[Tensor, " rows"]:
    """Return the variance that a defense's noise gives each estimated share."""
    squared = moments.between.square() @ moments.whiten.square().sum(dim=0)
    return evidence.noise * squared / moments.lengths.square()


def largest(values: Tensor) -> float:
    """Return the largest value; 0 of none."""
    return float(values.max()) if len(values) else 0.0


def _taken(
    gains: Float[Tensor, "rows steps"], widths: Int[Tensor, "rows steps"], total: int
) -> Int[Tensor, " rows"]:
    """Return the counts of the `total` largest gains, of which a step has as many as it is wide."""
    order = gains.flatten().argsort(descending=True, stable=True)
    each = widths.flatten()[order]
    units = (total - (each.cumsum(0) - each)).clamp(min=0).minimum(each)
    taken = torch.zeros(len(gains), dtype=torch.int64)
    return taken.index_add_(0, order // max(1, gains.shape[1]), units)


def _likelihoods(
    moments: Moments,
    evidence: Evidence,
    total: int,
    grid: Float[Tensor, "rows counts"],
    possible: Bool[Tensor, " rows"],
) -> tuple[Float[Tensor, "rows counts"], float]:
    """Return each row's log-likelihood at each count, and the misfit of `Counts`."""
    observed = (total * (evidence.gradient @ moments.whiten - moments.other)).float()
    noise = evidence.noise * total**2 * moments.whiten.square().sum(dim=0)
    rest = (total * moments.squares.unsqueeze(1) * moments.spread + noise + RIDGE).float()
    each = moments.between.float()
    fits, distances = [], []
    for k in grid.float().unsqueeze(2).split(max(1, CELLS // max(1, each.numel())), dim=1):
        variance = rest.unsqueeze(1) + k
        left = torch.addcmul(observed.unsqueeze(1), k, each.unsqueeze(1), value=-1).square_()
        distances.append(left.div_(variance).sum(dim=2))
        fits.append(-0.5 * (distances[-1] + variance.log_().sum(dim=2)))
    fit, distance = torch.cat(fits, dim=1).double(), torch.cat(distances, dim=1)
    best = fit.argmax(dim=1, keepdim=True)
    counted = (grid.gather(1, best).squeeze(1) > 0) & possible
    nearest = distance.gather(1, best).squeeze(1)[counted]
    misfit = float(nearest.mean()) / each.shape[1] if len(nearest) else 1.0
    return fit, max(1.0, misfit)


def candidates(moments: Moments, evidence: Evidence, total: int) -> Int[Tensor, " rows"]:
    """Return the rows that are looked at: those present, and those that look most like a target.

    Args:
        moments: Of the model sent.
        evidence: Of the update.
        total: Number of targets, about.
    """
    size, present, outside = len(moments.rates), evidence.present, evidence.outside
    if present is None:
        return _likeliest(moments, evidence, min(size, 2 * total + SPARE))
    if outside is None or not outside.any():
        return present.nonzero().squeeze(1)
    absent = float(outside[~present].sum())
    few = min(size, int(present.sum()) + math.ceil(absent) + SPARE)
    others = torch.cat([_likeliest(moments, evidence, few), outside.topk(min(size, SPARE)).indices])
    looked_at = present.clone()
    looked_at[others] = True
    return (looked_at & (present | (outside > 0))).nonzero().squeeze(1)


def _likeliest(moments: Moments, evidence: Evidence, few: int) -> Int[Tensor, " rows"]:
    """Return the rows with the largest estimated share of the targets, in order."""
    return shares(moments, evidence).topk(few).indices.sort().values


def drifted(moments: Moments, evidence: Evidence, guess: Counts, total: int) -> Moments:
    """Return the moments of a model that moved while it trained.

    Over local steps features move by much the same for every token, which shows in what the
    counted targets' rows have on average besides the moments of the model sent.

    Args:
        moments: Of the model sent.
        evidence: Of the update.
        guess: Counts by these moments.
        total: Number of targets that they were made for.
    """
    rows = guess.each.nonzero().squeeze(1)
    few, number = moments.at(rows), guess.each[rows].double()
    observed = total * (evidence.gradient[rows] @ few.whiten - few.other)
    left = observed - number.unsqueeze(1) * few.between
    return replace(moments, target=moments.target + left.sum(dim=0) / number.sum().clamp(min=1))


def shares(moments: Moments, evidence: Evidence) -> Float[Tensor, " vocabulary"]:
    """Return the least-squares estimate of each token's share k/N of the targets."""
    return torch.einsum("vd,vd->v", evidence.gradient, moments.along) - moments.offset
