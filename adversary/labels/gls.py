"""Generalised least squares for counts: how many examples of each class explain a sketch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.labels.moments import Moments
from adversary.labels.posterior import SPREADS, Evidence

RIDGES = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
NEGLIGIBLE = 1e-3  # of what the least ridge adds: noise that changes nothing


@dataclass(frozen=True)
class Fit:
    """The outcome of one fit.

    Attributes:
        evidence: What the update says, without a prior.
        spread: The prior's variance that makes the update most likely (empirical Bayes).
        counts: The most likely real-valued counts under that prior.
        misfit: Mean square of what these counts leave of the sketch, in standard deviations of the
            covariance that they imply: about 1 where auxiliary examples are like the client's.
    """

    evidence: Evidence
    spread: float
    counts: Float[Tensor, " classes"]
    misfit: float

    @property
    def posterior(self) -> Evidence:
        """Evidence and prior together."""
        return self.evidence.with_prior(self.spread)

    @property
    def tempered(self) -> Evidence:
        """Evidence as weak as the fit is bad: its logarithm over the misfit's square.

        A model that fits its auxiliary data better than a client's gives too small a covariance.
        What counts can absorb of the difference is not in the misfit, hence the square.
        """
        return self.evidence.tempered(max(1.0, self.misfit) ** 2)


def fit_counts(
    sketch: Float[Tensor, " kept"],
    moments: Moments,
    lower: Float[Tensor, " classes"],
    total: int,
    *,
    noise: Float[Tensor, "kept kept"] | None = None,
    rounds: int = 3,
    start: Float[Tensor, " classes"] | None = None,
) -> Fit:
    """Explain a sketch by counts: sketch ≈ Σ_c n_c·μ_c, with the covariance that they imply.

    The covariance (`Moments.weights`) depends on the counts, so that fits are repeated.
    Gradients of trained models have heavy tails and their covariance is never well known: a share
    of its diagonal is added, chosen with the prior's spread by marginal likelihood.

    Args:
        sketch: What was observed.
        moments: Of one example per class, in the same sketch.
        lower: Counts that are certain.
        total: How many examples there are.
        noise: Covariance of known noise on the coordinates.
        rounds: Fits; the ridge is chosen in the first.
        start: Counts that the first covariance is taken at; even without.
    """
    even = _even(len(lower), total)
    counts = even if start is None else start
    weighed, evidence = None, None
    for _ in range(rounds):
        weighing = _Weighing(sketch, moments, counts, noise, even)
        weighed = weighing.best() if weighed is None else weighing.at(weighed.place)
        evidence = Evidence(weighed.quadratic, weighed.linear, lower, total)
        counts = evidence.with_prior(weighed.spread).most_likely().clamp(min=0)
    assert weighed is not None
    assert evidence is not None
    left = sketch - moments.means @ counts
    return Fit(evidence, weighed.spread, counts, weighed.mean_square(left))


def most_likely_noise(
    sketch: Float[Tensor, " kept"],
    moments: Moments,
    total: int,
    noise: Float[Tensor, "kept kept"],
    variances: Sequence[float],
) -> tuple[float, float]:
    """Return the variance of noise under which a sketch is most likely, and that log likelihood.

    Of equal ones the first.

    Args:
        sketch: What was observed.
        moments: Of one example per class, in the same sketch.
        total: How many examples there are.
        noise: Covariance of the coordinates under noise of variance 1 on every entry.
        variances: Among which to choose.
    """
    even = _even(len(moments.counts), total)

    def likelihood(variance: float) -> float:
        return _Weighing(sketch, moments, even, variance * noise, even).best().likelihood

    likelihoods = [likelihood(variance) for variance in variances]
    best = max(likelihoods)
    return variances[likelihoods.index(best)], best


@dataclass(frozen=True)
class _Whitened:
    """The means of all classes where a covariance, with a ridge on its diagonal, is white.

    Attributes:
        factor: Lower triangle L of the covariance L Lᵀ.
        design: L⁻¹ · means.
        quadratic: Q = designᵀ · design.
        strength: Eigenvalues of Q on counts that add up to nothing.
        axes: Their eigenvectors.
    """

    factor: Tensor
    design: Tensor
    quadratic: Tensor
    strength: Tensor
    axes: Tensor

    @classmethod
    def of(
        cls, covariance: Tensor, means: Tensor, ridge: float, noise: Tensor | None
    ) -> "_Whitened":
        """Return it; `noise` is a covariance that is added."""
        total = covariance.clone()
        total.diagonal().mul_(1 + ridge)
        if noise is not None:
            total.add_(noise)
        total.diagonal().add_(1e-12 * total.diagonal().mean().clamp(min=1e-300))
        factor = torch.linalg.cholesky(total)
        design = torch.linalg.solve_triangular(factor, means, upper=False)
        quadratic = design.T @ design
        return cls(factor, design, quadratic, *_axes(quadratic))


@dataclass(frozen=True)
class _Weighed:
    """What least squares under one covariance says.

    Attributes:
        place: Of the ridge.
        quadratic: Q.
        linear: r.
        likelihood: Logarithm, up to what no ridge changes.
        spread: The most likely variance of the prior.
        white: Where the covariance is white, up to a factor.
        size: That factor.
    """

    place: int
    quadratic: Tensor
    linear: Tensor
    likelihood: float
    spread: float
    white: _Whitened
    size: float

    def mean_square(self, left: Tensor) -> float:
        """Return the mean square of what is left of a sketch, in standard deviations."""
        white = torch.linalg.solve_triangular(self.white.factor, left.unsqueeze(1), upper=False)
        return float(white.square().mean()) / self.size


@dataclass(frozen=True)
class _Weighing:
    """Least squares under the covariance of some counts, with a share of its diagonal added."""

    sketch: Tensor
    moments: Moments
    counts: Tensor
    noise: Tensor | None
    even: Tensor

    def best(self) -> _Weighed:
        """Return the fit with the most likely ridge, uphill from the middle."""
        tried = {}
        place, ahead = len(RIDGES) // 2, 1
        tried[place] = self.at(place)
        for ahead in (1, -1):
            while 0 <= place + ahead < len(RIDGES) and place + ahead not in tried:
                tried[place + ahead] = self.at(place + ahead)
                if tried[place + ahead].likelihood <= tried[place].likelihood:
                    break
                place += ahead
        return tried[place]

    def at(self, place: int) -> _Weighed:
        """Return the fit with one ridge."""
        white, size = self._whitened(place)
        away = self.sketch - self.moments.means @ self.even
        rest = torch.linalg.solve_triangular(white.factor, away.unsqueeze(1), upper=False)[:, 0]
        quadratic, pull = white.quadratic / size, white.design.T @ rest / size
        along = _along(white.axes, pull)
        likelihood, spread = _gain(white.strength / size, along, float(self.even[0]))
        likelihood -= float(rest.square().sum()) / size / 2 + len(rest) * math.log(size) / 2
        likelihood -= float(white.factor.diagonal().log().sum())
        linear = pull + quadratic @ self.even
        return _Weighed(place, quadratic, linear, likelihood, spread, white, size)

    def _whitened(self, place: int) -> tuple[_Whitened, float]:
        """Return the means under the covariance of a ridge, and what it is to be multiplied by.

        Where all classes share one covariance, it is factored once for all clients.
        """
        means, ridge = self.moments.means, RIDGES[place]
        if not self._shared:
            return _Whitened.of(self._covariance, means, ridge, self.noise), 1.0
        kept, weights = self.moments.kept, self.moments.weights(self.counts)
        total = float(weights.sum())
        if ridge not in kept:
            covariance = self.moments.covariance(weights / total)
            kept[ridge] = _Whitened.of(covariance, means, ridge, None)
        return kept[ridge], total

    @cached_property
    def _covariance(self) -> Tensor:
        if self.counts is self.even:
            return self.moments.even_covariance(float(self.even[0]))
        return self.moments.covariance(self.moments.weights(self.counts))

    @cached_property
    def _shared(self) -> bool:
        """Whether all classes share one covariance, and what the least ridge adds drowns noise."""
        if not self.moments.covariances.pooled:
            return False
        if self.noise is None:
            return True
        least = RIDGES[0] * float(self._covariance.diagonal().min())
        return float(self.noise.diagonal().max()) <= NEGLIGIBLE * least


def _even(classes: int, total: int) -> Float[Tensor, " classes"]:
    return torch.full((classes,), total / classes, dtype=torch.float64)


def best_spread(evidence: Evidence) -> float:
    """Return the prior's variance that makes what was observed most likely."""
    even = evidence.total / len(evidence.linear)
    pull = evidence.linear - even * evidence.quadratic.sum(dim=1)
    strength, axes = _axes(evidence.quadratic)
    return _gain(strength, _along(axes, pull), even)[1]


def _axes(quadratic: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q's eigenvalues and eigenvectors on counts that add up to nothing."""
    centred = quadratic - quadratic.mean(dim=0) - quadratic.mean(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred + quadratic.mean())
    return values[1:].clamp(min=0), vectors[:, 1:]


def _along(axes: Tensor, pull: Tensor) -> Tensor:
    """Return the evidence's pull from even counts along each eigenvector."""
    return axes.T @ (pull - pull.mean())


def _gain(strength: Tensor, along: Tensor, even: float) -> tuple[float, float]:
    """Return the log marginal likelihood, up to what no prior changes, and the best spread."""
    spreads = even * torch.tensor(SPREADS, dtype=torch.float64)
    grown = 1 + spreads.unsqueeze(1) * strength
    gains = spreads.unsqueeze(1) * along.square() / grown - grown.log()
    likelihoods = gains.sum(dim=1) / 2
    chosen = int(likelihoods.argmax())
    return float(likelihoods[chosen]), float(spreads[chosen])
