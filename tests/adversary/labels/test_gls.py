from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from adversary.labels import gls
from adversary.labels.covariances import Matrices
from adversary.labels.gls import best_spread, fit_counts
from adversary.labels.moments import Moments
from adversary.labels.posterior import SPREADS
from fedsim.core.rng import generator

CLASSES, KEPT = 4, 7
ZERO = torch.zeros(CLASSES).double()


def classes(seed: int, *, apart: float = 1.0, known: float = 1e6) -> Moments:
    stream = generator(seed, "gls")
    roots = torch.randn(CLASSES, KEPT, KEPT, generator=stream).double() / KEPT**0.5
    means = apart * torch.randn(KEPT, CLASSES, generator=stream).double()
    return Moments(means, Matrices(roots @ roots.mT), torch.full((CLASSES,), known).double())


def each(moments: Moments) -> Tensor:
    """Return the covariance of every class."""
    return torch.stack([moments.covariance(one) for one in torch.eye(CLASSES).double()])


def drawn(moments: Moments, counts: list[int], seed: int) -> Tensor:
    """Return the sum of Gaussian shares, this many of each class."""
    stream, total = generator(seed, "shares"), torch.zeros(KEPT).double()
    for c, count in enumerate(counts):
        noise = torch.randn(count, KEPT, generator=stream).double()
        total += count * moments.means[:, c]
        total += (noise @ torch.linalg.cholesky(each(moments)[c]).T).sum(0)
    return total


@pytest.mark.parametrize("counts", [[10, 3, 0, 7], [40, 0, 0, 0], [5, 5, 5, 5]])
def test_counts_of_gaussian_shares_are_recovered(counts):
    total, errors = sum(counts), []
    for seed in range(10):
        moments = classes(seed, apart=8.0)
        fit = fit_counts(drawn(moments, counts, seed), moments, ZERO, total)
        assert float(fit.counts.sum()) == pytest.approx(total)
        assert float(fit.counts.min()) >= 0
        errors.append(float((fit.counts - torch.tensor(counts)).abs().sum()) / 2 / total)
    assert sum(errors) / 10 < 0.06


def test_exact_shares_give_exact_counts():
    moments = classes(0)
    exact = Moments(moments.means, Matrices(1e-6 * each(moments)), moments.counts)
    counts = torch.tensor([6.0, 0.0, 1.0, 3.0]).double()
    fit = fit_counts(exact.means @ counts, exact, ZERO, 10)
    torch.testing.assert_close(fit.counts, counts, rtol=0, atol=1e-2)


def test_the_error_is_what_the_evidence_says_it_is():
    # Σ over directions of (n̂ − n)ᵀQ(n̂ − n) is χ² with C − 1 degrees of freedom.
    counts, squares = [30, 12, 20, 18], []
    for seed in range(60):
        moments = classes(seed, apart=0.5)
        fit = fit_counts(drawn(moments, counts, seed), moments, ZERO - 1000, 80)
        away = fit.evidence.most_likely() - torch.tensor(counts)
        squares.append(float(away @ fit.evidence.quadratic @ away))
    assert sum(squares) / 60 == pytest.approx(CLASSES - 1, abs=4 * (6 / 60) ** 0.5)


def covariance(moments: Moments, ridge: float, total: int = 20) -> Tensor:
    """Return the covariance at even counts, with a share of its diagonal added."""
    even = total / CLASSES
    whole = sum((even + even**2 / m) * s
                for s, m in zip(each(moments), moments.counts, strict=True))  # fmt: skip
    return whole + ridge * torch.diag(whole.diagonal())


def likelihoods(sketch: Tensor, moments: Moments, ridge: float, total: int = 20) -> Tensor:
    """Return log p(sketch) under every spread of the prior, by the density of the whole."""
    even = torch.full((CLASSES,), total / CLASSES).double()
    centring = torch.eye(CLASSES).double() - 1 / CLASSES
    spreads = [total / CLASSES * s for s in SPREADS]
    whole = [
        covariance(moments, ridge, total) + s * moments.means @ centring @ moments.means.T
        for s in spreads
    ]
    mean = moments.means @ even
    return torch.stack([MultivariateNormal(mean, each).log_prob(sketch) for each in whole])


CASES = [([20, 0, 0, 0], 1.0), ([5, 5, 5, 5], 1.0), ([12, 8, 0, 0], 0.3), ([9, 2, 4, 5], 3.0)]


@pytest.mark.parametrize(("counts", "apart"), CASES)
def test_the_spread_is_that_of_the_largest_marginal_likelihood(counts, apart, monkeypatch):
    monkeypatch.setattr(gls, "RIDGES", (0.03,))
    chosen = set()
    for seed in range(8):
        moments = classes(seed, apart=apart)
        sketch = drawn(moments, counts, seed)
        fit = fit_counts(sketch, moments, ZERO, 20, rounds=1)
        naive = likelihoods(sketch, moments, 0.03)
        assert fit.spread == pytest.approx(20 / CLASSES * SPREADS[int(naive.argmax())])
        assert best_spread(fit.evidence) == fit.spread
        chosen.add(fit.spread)
    assert len(chosen) > 1 or counts == [20, 0, 0, 0]


@pytest.mark.parametrize(("counts", "apart"), CASES)
def test_the_ridge_is_that_of_the_largest_marginal_likelihood(counts, apart):
    for seed in range(8):
        moments = classes(seed, apart=apart)
        sketch = drawn(moments, counts, seed) * (1 + seed % 3)  # from well to badly explained
        fit = fit_counts(sketch, moments, ZERO, 20, rounds=1)
        best = [float(likelihoods(sketch, moments, ridge).max()) for ridge in gls.RIDGES]
        inverse = torch.linalg.inv(covariance(moments, gls.RIDGES[best.index(max(best))]))
        expected = moments.means.T @ inverse @ moments.means
        torch.testing.assert_close(fit.evidence.quadratic, expected)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("known", [1e9, 5.0])
def test_evidence_is_least_squares(known, noisy, monkeypatch):
    monkeypatch.setattr(gls, "RIDGES", (0.1,))
    moments = classes(1, known=known)
    sketch = drawn(moments, [9, 2, 4, 5], 1)
    noise = torch.diag(torch.linspace(0, 9, KEPT).double()) if noisy else None
    evidence = fit_counts(sketch, moments, ZERO, 20, rounds=1, noise=noise).evidence
    whole = covariance(moments, 0.1) + (noise if noisy else 0)
    both = moments.means.T @ torch.linalg.inv(whole)
    torch.testing.assert_close(evidence.quadratic, both @ moments.means)
    torch.testing.assert_close(evidence.linear, both @ sketch)


def test_few_auxiliary_examples_make_less_sure(monkeypatch):
    monkeypatch.setattr(gls, "RIDGES", (0.1,))
    many, few = (classes(0, known=known) for known in (1e12, 5.0))
    sketch = drawn(many, [9, 2, 4, 5], 0)
    sure, unsure = (
        fit_counts(sketch, m, ZERO, 20, rounds=1).evidence.quadratic for m in (many, few)
    )
    torch.testing.assert_close(unsure, sure / 2)  # 5 + 5²/5 = 10 shares' worth


def test_later_rounds_take_the_covariance_at_the_counts_found(monkeypatch):
    monkeypatch.setattr(gls, "RIDGES", (0.1,))
    moments = classes(2, apart=4.0)
    sketch = drawn(moments, [20, 0, 0, 0], 2)
    first = fit_counts(sketch, moments, ZERO, 20, rounds=1)
    second = fit_counts(sketch, moments, ZERO, 20, rounds=2)
    again = fit_counts(sketch, moments, ZERO, 20, rounds=1, start=first.counts)
    assert not torch.allclose(first.evidence.quadratic, second.evidence.quadratic)
    torch.testing.assert_close(second.evidence.quadratic, again.evidence.quadratic)


@pytest.mark.parametrize("spread", [None, 1e-12, 1.0])
def test_what_all_classes_share_is_factored_once(spread, monkeypatch):
    moments = classes(3, known=5.0)
    pooled = Matrices(each(moments).mean(dim=0, keepdim=True))
    shared = Moments(moments.means, pooled, moments.counts)
    apart = Moments(moments.means, Matrices(pooled.each.expand(CLASSES, -1, -1)), moments.counts)
    noise = None if spread is None else spread * torch.eye(KEPT).double()
    for counts in ([9, 2, 4, 5], [20, 0, 0, 0]):
        sketch = drawn(moments, counts, 0)
        once, again = (fit_counts(sketch, m, ZERO, 20, noise=noise) for m in (shared, apart))
        assert once.spread == again.spread
        torch.testing.assert_close(once.counts, again.counts)
        torch.testing.assert_close(once.evidence.quadratic, again.evidence.quadratic)
        torch.testing.assert_close(once.evidence.linear, again.evidence.linear)
    factored = lambda moments: bool({*moments.kept} & {*gls.RIDGES})
    assert factored(shared) == (spread != 1.0)  # noise does not grow with the counts
    assert not factored(apart)
    assert not replace(shared, means=2 * shared.means).kept
