import itertools
import math
from dataclasses import replace

import pytest
import torch

from adversary.attacks.eb_gls import eb_gls, solve
from adversary.labels.draws import CLIENTS, prior_draws, weighted_overlap_counts
from adversary.labels.dropped import share_left
from adversary.labels.head import Forward, HeadGradient
from adversary.labels.posterior import Evidence
from adversary.workspace import workspace
from defenses.quantise import quantise
from defenses.sparsify import sparsify
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary
from tests.builders import bilinear, observe, plain_gradient, prune

EYE, NONE = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)


def about(counts, precision, *, lower=NONE):
    """Return evidence for some counts, of a precision in all directions."""
    counts = torch.tensor(counts, dtype=torch.float64)
    return Evidence(precision * EYE, precision * counts, lower, int(counts.sum()))


def log_prior(n):
    """Return log p(n) of the mixture: each label is an even one, or of a Dirichlet client."""
    total = 0.0
    for (alpha, even), probability in CLIENTS.items():
        for uneven in itertools.product(*(range(k + 1) for k in n)):
            rest = [k - u for k, u in zip(n, uneven, strict=True)]
            total += probability * math.exp(
                multinomial(uneven, alpha, 1 - even) + multinomial(rest, math.inf, even)
            )
    return math.log(total * math.factorial(sum(n)))


def multinomial(n, alpha, share):
    """Return log p(n)·share^Σn / Σn! of Dirichlet-multinomial counts; even if α is infinite."""
    if sum(n) == 0 or share == 0:
        return -math.inf if sum(n) else 0.0
    value = sum(n) * math.log(share) - sum(math.lgamma(k + 1) for k in n)
    if math.isinf(alpha):
        return value - sum(n) * math.log(len(n))
    value += math.lgamma(len(n) * alpha) - math.lgamma(sum(n) + len(n) * alpha)
    return value + sum(math.lgamma(k + alpha) - math.lgamma(alpha) for k in n)


@pytest.mark.twin
def test_the_answer_is_that_of_all_counts_together():
    every = [n for n in itertools.product(range(7), repeat=3) if sum(n) == 6]
    evidence = about([4, 2, 0], 0.2)
    off = lambda n: sum((a - b) ** 2 for a, b in zip(n, (4, 2, 0), strict=True))
    posterior = {n: math.exp(log_prior(n) - 0.1 * off(n)) for n in every}
    overlap = {
        guess: sum(p * sum(map(min, guess, n)) for n, p in posterior.items()) for guess in every
    }
    best = max(overlap.values())
    found = weighted_overlap_counts(evidence)
    assert found is not None
    assert overlap[tuple(found.tolist())] > 0.98 * best


@pytest.mark.twin
def test_draws_have_the_moments_of_the_prior():
    counts, log_weight = prior_draws(3, 10)
    assert set(counts.sum(dim=1).tolist()) == {10.0}
    assert float(counts.min()) >= 0
    weight = log_weight.softmax(dim=0).unsqueeze(1)
    mean = (weight * counts).sum(dim=0)
    assert mean.tolist() == pytest.approx([10 / 3] * 3, abs=0.15)
    variance = (weight * (counts - mean).square()).sum(dim=0)
    expected = sum(
        probability * (10 + 90 * (1 - even) ** 2 / (1 + 3 * alpha)) * (1 / 3) * (2 / 3)
        for (alpha, even), probability in CLIENTS.items()
    )
    assert variance.tolist() == pytest.approx([expected] * 3, rel=0.05)


@pytest.mark.worked
def test_evidence_that_says_nothing_leaves_even_counts():
    found = weighted_overlap_counts(about([9, 0, 0], 0.0))
    assert found is not None
    assert found.tolist() == [3, 3, 3]


def test_evidence_that_is_strong_leaves_too_few_draws():
    assert weighted_overlap_counts(about([40, 30, 20], 100.0)) is None


def test_what_is_certain_stays_so():
    lower = torch.tensor([0.0, 4.0, 0.0], dtype=torch.float64)
    found = weighted_overlap_counts(about([6, 0, 0], 0.1, lower=lower))
    assert found is not None
    assert int(found[1]) >= 4
    assert int(found.sum()) == 6


def noisy_view(std, seed=0):
    """Return a client of mostly one class, its gradient under noise, and the adversary."""
    model, stream = bilinear(4, features=20), generator(seed, "noisy")
    labels = torch.tensor([0] * 14 + [1] * 4 + [2, 3])
    gradient = plain_gradient(model, torch.rand(20, 4, generator=stream), labels)
    noise = {k: std * torch.randn(v.shape, generator=stream) for k, v in gradient.items()}
    known = torch.arange(80) % 4
    auxiliary = Auxiliary(model, 4, inputs=torch.rand(80, 4, generator=stream), labels=known)
    return observe({k: gradient[k] + noise[k] for k in gradient}, 20, sent=model), auxiliary


def test_the_larger_the_noise_the_more_even_the_answer():
    for std, largest in ((0.0, 14), (0.02, 14), (100.0, 5)):
        view, auxiliary = noisy_view(std)
        guess = eb_gls(view, auxiliary, generator(0))
        assert int(guess.sum()) == 20
        assert abs(int(guess.max()) - largest) <= 2


def test_without_noise_the_most_likely_counts_are_the_answer():
    view, auxiliary = noisy_view(0.0)
    plain, searched = (
        eb_gls(view, auxiliary, generator(s), refine=r) for s, r in enumerate(("", "search"))
    )
    assert torch.equal(plain, searched)


def test_a_bias_of_which_nothing_was_left_leaves_the_weight_sparse():
    view, auxiliary = noisy_view(0.0)
    update = view.latest.update
    delta = {n: v * (0 if v.ndim == 1 else torch.arange(v.numel()).view_as(v) % 3 == 0)
             for n, v in update.delta.items()}  # fmt: skip
    view = replace(view, observations=[replace(view.latest, update=replace(update, delta=delta))])
    problem, _ = solve(view.latest, workspace(view, auxiliary))
    assert not problem.whole
    guess = eb_gls(view, auxiliary, generator(0))
    assert torch.minimum(guess, torch.tensor([14, 4, 1, 1])).sum() >= 17


@pytest.mark.parametrize("name", ["sparsify", "quantise"])
def test_noise_behind_zeros_is_noise_all_the_same(name):
    defense = {"sparsify": sparsify(rate=0.5), "quantise": quantise(bits=3)}[name]
    for seed in range(3):
        view, auxiliary = noisy_view(100.0, seed)
        delta = view.latest.update.delta
        hidden = defense.apply(delta, defense.init(delta), generator(seed, name))[0]
        guess = eb_gls(observe(hidden, 20, sent=view.latest.sent), auxiliary, generator(0))
        assert int(guess.max()) <= 8


def test_a_pruned_update_without_noise_is_taken_as_it_is():
    view, auxiliary = noisy_view(0.0)
    pruned = observe(prune(view.latest.update.delta, 0.5), 20, sent=view.latest.sent)
    answers = (eb_gls(pruned, auxiliary, generator(0), refine=r) for r in ("", "search"))
    assert torch.equal(*answers)


def test_entries_that_were_dropped_at_random_are_taken_back_to_their_size():
    truth, named, seeds = torch.tensor([14, 4, 1, 1]), 0, 6
    for seed in range(seeds):
        view, auxiliary = noisy_view(0.0, seed)
        delta = view.latest.update.delta
        defense = sparsify(rate=0.5)
        left = defense.apply(delta, defense.init(delta), generator(seed, "left"))[0]
        guess = eb_gls(observe(left, 20, sent=view.latest.sent), auxiliary, generator(0))
        named += int(torch.minimum(guess, truth).sum())
    assert named / seeds > 17  # of 20; all of class 0 names 14


def test_the_share_left_is_that_of_features_that_live():
    stream = generator(0, "share")
    weight = torch.randn(10, 50, generator=stream).double()
    features = torch.rand(5, 50, generator=stream)
    features[:, 40:] = 0.0
    outputs = Forward(features, torch.zeros(5, 10))
    random = (torch.rand(10, 50, generator=stream) < 0.3) & (torch.arange(50) < 40)
    large = weight.abs() > weight.abs().quantile(0.7)
    of = lambda mask: share_left(HeadGradient(weight * mask, None, 1.0, 1, 1), mask, outputs)
    assert of(random) == pytest.approx(int(random.sum()) / 400)
    assert of(large) == 1.0  # pruned by size: none is small
