"""How often each token is a target, row by row of the head's gradient.

The head's gradient of token v is G_v = (1/N)·[Σ (p_v − 1)h over targets v + Σ p_v h over others].
Given how many of N targets are v, a row is taken to be normal, with moments from auxiliary text;
rows are independent given the counts, so that the cost grows with V·d and not with (V·d)².
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adversary.text.moments import SHRINKAGE, Moments

RIDGE = 0.2  # variance of a whitened coordinate that no auxiliary target shows
GROWTH = 1.15  # from one count to the next, where counts are large
CELLS = 1 << 14  # rows times totals that are weighed at a time
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
    """

    gradient: Float[Tensor, "vocabulary width"]
    present: Bool[Tensor, " vocabulary"] | None = None
    outside: Float[Tensor, " vocabulary"] | None = None
    noise: float = 0.0


def noise_variance(gradient: Float[Tensor, "vocabulary width"]) -> float:
    """Return the variance of the noise on each entry of a head's gradient.

    Σ_v (p_v − y_v) = 0 for every target, so that the columns add up to zero without noise.
    """
    return float(gradient.double().sum(dim=0).square().mean()) / len(gradient)


@dataclass(frozen=True)
class Counts:
    """How often each token is a target.

    Attributes:
        each: Shape (V,); adds up to the total, but where fewer rows are possible.
        misfit: Mean squared distance of rows to their best count in standard deviations: about 1
            where the moments are those of the model trained, never below.
    """

    each: Int[Tensor, " vocabulary"]
    misfit: float


def counts(moments: Moments, evidence: Evidence, total: int) -> Counts:
    """Return how often each token is a target.

    Of all (token, one more of it), those `total` with the largest gain in log-posterior are taken.

    Args:
        moments: Of the model sent.
        evidence: Of the update.
        total: Number of targets N, at least 0.
    """
    rows = _candidates(moments, evidence, total)
    rates = total * moments.rates[rows]
    present = None if evidence.present is None else evidence.present[rows]
    if present is not None and evidence.outside is not None:
        rates = torch.where(present, rates, evidence.outside[rows])
    grid = _grid(min(total, int(4 + 6 * total * float(moments.rates.max()))))
    fits, misfit = _likelihoods(moments, evidence, total, rows, grid)
    prior = grid * rates.unsqueeze(1).log() - torch.lgamma(grid + 1)
    widths = grid.diff()
    gains = (fits / misfit + prior).diff(dim=1) / widths
    if present is not None and len(widths):
        gains[present, 0] = math.inf
    gains = gains.cummin(dim=1).values
    return Counts(_taken(gains, widths.long(), rows, total, len(moments.rates)), misfit)


def _grid(most: int) -> Float[Tensor, " counts"]:
    """Return the counts that rows are weighed at: all small ones, and ever fewer large ones."""
    counts = [0]
    while counts[-1] < most:
        counts.append(min(most, max(counts[-1] + 1, round(counts[-1] * GROWTH))))
    return torch.tensor(counts, dtype=torch.float64)


def _taken(
    gains: Float[Tensor, "rows steps"],
    widths: Int[Tensor, " steps"],
    rows: Int[Tensor, " rows"],
    total: int,
    size: int,
) -> Int[Tensor, " vocabulary"]:
    """Return the counts of the `total` largest gains, of which a step has as many as it is wide."""
    order = gains.flatten().argsort(descending=True, stable=True)
    each = widths.repeat(len(rows))[order]
    before = each.cumsum(0) - each
    units = (total - before).clamp(min=0).minimum(each)
    owners = rows[order // max(1, len(widths))]
    return torch.zeros(size, dtype=torch.int64).index_add_(0, owners, units)


def _likelihoods(
    moments: Moments,
    evidence: Evidence,
    total: int,
    rows: Int[Tensor, " rows"],
    grid: Float[Tensor, " counts"],
) -> tuple[Float[Tensor, "rows counts"], float]:
    """Return each row's log-likelihood at each count, and the misfit of `Counts`."""
    observed = total * (evidence.gradient[rows] @ moments.whiten - moments.other[rows])
    each = moments.between[rows]
    noise = evidence.noise * total**2 * moments.whiten.square().sum(dim=0)
    rest = total * moments.squares[rows].unsqueeze(1) * moments.spread + noise + RIDGE
    fits, distances = [], []
    for count in grid.tolist():
        variance = rest + count
        distances.append(((observed - count * each).square() / variance).sum(dim=1))
        fits.append(-0.5 * (distances[-1] + variance.log().sum(dim=1)))
    fit, distance = torch.stack(fits, dim=1), torch.stack(distances, dim=1)
    best = fit.argmax(dim=1)
    nearest = distance.gather(1, best.unsqueeze(1)).squeeze(1)[best > 0]
    misfit = float(nearest.mean()) / each.shape[1] if len(nearest) else 1.0
    return fit, max(1.0, misfit)


def _candidates(moments: Moments, evidence: Evidence, total: int) -> Int[Tensor, " rows"]:
    """Return the rows that are looked at: those present, and those that look most like a target."""
    size, few = len(moments.rates), 2 * total + SPARE
    if evidence.present is None:
        return _likeliest(moments, evidence, few) if few < size else torch.arange(size)
    inside = evidence.present.nonzero().squeeze(1)
    if evidence.outside is None or not evidence.outside.any():
        return inside
    few = min(size, max(len(inside), total) + SPARE)
    others = torch.cat([_likeliest(moments, evidence, few), evidence.outside.topk(few).indices])
    return torch.cat([inside, others[evidence.outside[others] > 0]]).unique()


def _likeliest(moments: Moments, evidence: Evidence, few: int) -> Int[Tensor, " rows"]:
    """Return the rows with the largest estimated share of the targets."""
    return shares(moments, evidence).topk(few).indices


def likeliest_total(moments: Moments, evidence: Evidence, expected: float, deviation: float) -> int:
    """Return the number of targets N under which rows look most like whole numbers of targets.

    N is not uploaded. Each row's estimated share of the targets times N is a whole number k but for
    noise, whose prior is Poisson; a normal prior of N comes from the lengths of auxiliary texts.

    Args:
        moments: Of the model sent.
        evidence: Of the update.
        expected: Mean of N before the update is looked at.
        deviation: Its standard deviation.
    """
    rows = _candidates(moments, evidence, math.ceil(expected))
    each, lengths = moments.between[rows], moments.lengths[rows]
    squared, errors = each.square(), moments.errors[rows]
    # Noise of the mean share lengthens it, and the estimated shares are too small by that.
    counted = errors * (1 - SHRINKAGE * errors)
    reliable = (1 - each.shape[1] * counted / lengths).clamp(min=0.3)
    share = shares(moments, evidence)[rows] / reliable
    own = 1 / lengths  # variance of N·share for each target
    other = moments.squares[rows] * (squared @ moments.spread) / lengths.square()
    noise = evidence.noise * (squared @ moments.whiten.square().sum(dim=0)) / lengths.square()
    present = None if evidence.present is None else evidence.present[rows]

    def score(totals: Tensor) -> Tensor:
        most = float(totals.max())
        k = _grid(int(4 + 6 * most * float(moments.rates.max())))
        totals = totals[:, None, None]
        rate = totals * moments.rates[rows, None]
        variance = (k + RIDGE) * own.unsqueeze(1) + (k.square() * (errors * own).unsqueeze(1))
        variance = variance + totals * other.unsqueeze(1) + totals.square() * noise.unsqueeze(1)
        distance = (totals * share.unsqueeze(1) - k).square() / variance
        log = k * rate.log() - rate - torch.lgamma(k + 1) - 0.5 * (distance + variance.log())
        log[..., :-1] += k.diff().log()  # a count of the grid stands for those up to the next
        if present is not None:
            log[:, present, 0] = -math.inf
        totals = totals.flatten()
        prior = -0.5 * ((totals - expected) / deviation).square()
        return log.logsumexp(dim=2).sum(dim=1) + len(rows) * totals.log() + prior

    def best_of(totals: Tensor) -> float:
        scores = [score(part) for part in totals.split(max(1, CELLS // (len(rows) + 1)))]
        return float(totals[torch.cat(scores).argmax()])

    low, high = max(1.0, expected - 4 * deviation), expected + 4 * deviation
    step = max(1.0, (high - low) / 48)
    best = best_of(low + step * torch.arange(49, dtype=torch.float64))
    near = range(max(1, math.floor(best - step)), math.ceil(best + step) + 1)
    return int(best_of(torch.tensor(near, dtype=torch.float64)))


def shares(moments: Moments, evidence: Evidence) -> Float[Tensor, " vocabulary"]:
    """Return the least-squares estimate of each token's share k/N of the targets."""
    return (evidence.gradient * moments.along).sum(dim=1) - moments.offset
