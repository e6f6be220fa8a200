"""Generalised least squares for counts: how many examples of each class explain a sketch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.labels.moments import Moments
from adversary.labels.posterior import SPREADS, Evidence

RIDGES = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Fit:
    """The outcome of one fit.

    Attributes:
        evidence: What the update says, without a prior.
        spread: The prior's variance that makes the update most likely (empirical Bayes).
        counts: The most likely real-valued counts under that prior.
    """

    evidence: Evidence
    spread: float
    counts: Float[Tensor, " classes"]

    @property
    def posterior(self) -> Evidence:
        """Evidence and prior together."""
        return self.evidence.with_prior(self.spread)


def fit_counts(
    sketch: Float[Tensor, " kept"],
    moments: Moments,
    lower: Float[Tensor, " classes"],
    total: int,
    *,
    noise: Float[Tensor, " kept"] | None = None,
    rounds: int = 3,
    start: Float[Tensor, " classes"] | None = None,
) -> Fit:
    """Explain a sketch by counts: sketch ≈ Σ_c n_c·μ_c, with the covariance that they imply.

    The covariance Σ_c (n_c + n_c²/m_c)·S_c holds the examples' own spread and, with m_c auxiliary
    examples a class, the error of the means; it depends on the counts, so that fits are repeated.
    Gradients of trained models have heavy tails and their covariance is never well known: a share
    of its diagonal is added, chosen with the prior's spread by marginal likelihood.

    Args:
        sketch: What was observed.
        moments: Of one example per class, in the same sketch.
        lower: Counts that are certain.
        total: How many examples there are.
        noise: Variance of known noise on each coordinate.
        rounds: Fits; the ridge is chosen in the first.
        start: Counts that the first covariance is taken at; even without.
    """
    classes = len(lower)
    even = torch.full((classes,), total / classes, dtype=torch.float64)
    counts = even if start is None else start
    place, fit = None, None
    for _ in range(rounds):
        weights = counts + counts.square() / moments.counts
        covariance = moments.covariance(weights)
        weigh = _Weighing(sketch, moments.means, covariance, noise, even)
        place, (_, quadratic, linear, spread) = weigh.best() if place is None else weigh.at(place)
        evidence = Evidence(quadratic, linear, lower, total)
        counts = evidence.with_prior(spread).most_likely().clamp(min=0)
        fit = Fit(evidence, spread, counts)
    assert fit is not None
    return fit


def most_likely_noise(
    sketch: Float[Tensor, " kept"],
    moments: Moments,
    total: int,
    noise: Float[Tensor, " kept"],
    variances: Sequence[float],
) -> float:
    """Return the variance of noise under which a sketch is most likely; of equals the first.

    Args:
        sketch: What was observed.
        moments: Of one example per class, in the same sketch.
        total: How many examples there are.
        noise: Variance of each coordinate under noise of variance 1 on every entry.
        variances: Among which to choose.
    """
    classes = len(moments.counts)
    even = torch.full((classes,), total / classes, dtype=torch.float64)
    covariance = moments.covariance(even + even.square() / moments.counts)

    def likelihood(variance: float) -> float:
        weigh = _Weighing(sketch, moments.means, covariance, variance * noise, even)
        return weigh.best()[1][0]

    return max(variances, key=likelihood)


@dataclass(frozen=True)
class _Weighing:
    """Least squares under one covariance, with a share of its diagonal added."""

    sketch: Tensor
    means: Tensor
    covariance: Tensor
    noise: Tensor | None
    even: Tensor

    def best(self) -> tuple[int, tuple[float, Tensor, Tensor, float]]:
        """Return the place of the most likely ridge, uphill from the middle, and its fit."""
        tried = {}
        place, ahead = len(RIDGES) // 2, 1
        tried[place] = self.at(place)[1]
        for ahead in (1, -1):
            while 0 <= place + ahead < len(RIDGES) and place + ahead not in tried:
                tried[place + ahead] = self.at(place + ahead)[1]
                if tried[place + ahead][0] <= tried[place][0]:
                    break
                place += ahead
        return place, tried[place]

    def at(self, place: int) -> tuple[int, tuple[float, Tensor, Tensor, float]]:
        """Return, for one ridge, the log marginal likelihood, Q, r, and the best prior spread."""
        even, classes = self.even, len(self.even)
        total = self.covariance.clone()
        total.diagonal().mul_(1 + RIDGES[place])
        if self.noise is not None:
            total.diagonal().add_(self.noise)
        total.diagonal().add_(1e-12 * total.diagonal().mean().clamp(min=1e-300))
        factor = torch.linalg.cholesky(total)
        columns = torch.cat([self.means, (self.sketch - self.means @ even).unsqueeze(1)], dim=1)
        white = torch.linalg.solve_triangular(factor, columns, upper=False)
        design, rest = white[:, :classes], white[:, classes]
        quadratic, pull = design.T @ design, design.T @ rest
        likelihood, spread = _likelihood(quadratic, pull, float(even[0]))
        likelihood -= float(rest.square().sum() / 2 + factor.diagonal().log().sum())
        return place, (likelihood, quadratic, pull + quadratic @ even, spread)


def best_spread(evidence: Evidence) -> float:
    """Return the prior's variance that makes what was observed most likely."""
    even = evidence.total / len(evidence.linear)
    pull = evidence.linear - even * evidence.quadratic.sum(dim=1)
    return _likelihood(evidence.quadratic, pull, even)[1]


def _likelihood(quadratic: Tensor, pull: Tensor, even: float) -> tuple[float, float]:
    """Return the log marginal likelihood, up to what no prior changes, and the best spread.

    `pull` is that of the evidence at even counts.
    """
    # In the eigenbasis of Q on counts that add up to nothing, each direction stands alone.
    centred = quadratic - quadratic.mean(dim=0) - quadratic.mean(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred + quadratic.mean())
    strength, along = values[1:].clamp(min=0), (vectors.T @ (pull - pull.mean()))[1:]
    spreads = even * torch.tensor(SPREADS, dtype=torch.float64)
    grown = 1 + spreads.unsqueeze(1) * strength
    gains = spreads.unsqueeze(1) * along.square() / grown - grown.log()
    likelihoods = gains.sum(dim=1) / 2
    chosen = int(likelihoods.argmax())
    return float(likelihoods[chosen]), float(spreads[chosen])
