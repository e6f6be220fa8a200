import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp

from adversary.labels.posterior import CONCENTRATIONS, Evidence, round_above
from fedsim.core.rng import generator


def problem(classes, seed, *, total=20, bounded=True, sharp=1.0, diagonal=False):
    """Return random evidence whose answer does not lie within the bounds by itself."""
    stream = generator(seed, "posterior", classes)
    q = torch.randn(classes, classes, generator=stream).double()
    q = q.square().sum(0).diag() if diagonal else q @ q.T / classes
    n = total * torch.randn(classes, generator=stream).double().softmax(0)
    r = q @ n + 3 * torch.randn(classes, generator=stream).double()
    lower = torch.zeros(classes).double()
    if bounded:
        draws = torch.randint(classes, (total // 2,), generator=stream)
        lower = torch.bincount(draws, minlength=classes).double()
    return Evidence(sharp * q, sharp * r, lower, total)


def loss(evidence, n):
    return float(n @ evidence.quadratic @ n / 2 - evidence.linear @ n)


def all_counts(evidence):
    """Return every whole answer that the bounds allow, one row each."""
    classes = len(evidence.linear)
    free = evidence.total - int(evidence.lower.sum())
    rows = []
    for bars in itertools.combinations(range(free + classes - 1), classes - 1):
        rows.append(np.diff([-1, *bars, free + classes - 1]) - 1)
    return torch.from_numpy(np.array(rows)).double() + evidence.lower


@given(st.integers(2, 9), st.integers(0, 10**6), st.booleans(), st.sampled_from([1e-6, 1.0, 1e6]))
def test_the_active_set_finds_what_a_general_solver_finds(classes, seed, bounded, sharp):
    evidence = problem(classes, seed, bounded=bounded, sharp=sharp).with_prior(4.0 / sharp)
    n = evidence.most_likely()
    assert float(n.sum()) == pytest.approx(evidence.total)
    assert bool((n >= evidence.lower).all())
    q, r = evidence.quadratic.numpy() / sharp, evidence.linear.numpy() / sharp
    lower = evidence.lower.numpy()
    theirs = minimize(
        lambda x: x @ q @ x / 2 - r @ x,
        lower + (evidence.total - lower.sum()) / classes,
        jac=lambda x: q @ x - r,
        bounds=[(low, None) for low in lower],
        constraints={"type": "eq", "fun": lambda x: x.sum() - evidence.total,
                     "jac": lambda x: np.ones(classes)},
        method="SLSQP", options={"maxiter": 500, "ftol": 1e-13},
    )  # fmt: skip
    assume(theirs.success)  # the general solver gives up on some
    ours = loss(evidence, n) / sharp
    assert ours <= theirs.fun + 1e-7 * (1 + abs(theirs.fun))
    np.testing.assert_allclose(n, theirs.x, atol=2e-3)


@given(st.integers(3, 7), st.integers(0, 10**6))
def test_of_evidence_in_two_directions_too(classes, seed):
    # Here a class that was left at its bound must be let go again.
    stream = generator(seed, "two directions", classes)
    sizes = torch.logspace(-1, 1, classes).double().unsqueeze(1)
    a = torch.randn(classes, 2, generator=stream).double() * sizes
    q = a @ a.T + 0.05 * torch.eye(classes).double()
    r = q @ (10 * torch.randn(classes, generator=stream).double())
    n = Evidence(q, r, torch.zeros(classes).double(), 20).most_likely()
    # Convex: it is the best where every free class pulls alike, and every other one less.
    pull = r - q @ n
    size = 1e-6 * float(q.diagonal().max()) * 20
    free = n > 1e-9
    assert float(n.sum()) == pytest.approx(20)
    assert float(pull[free].max() - pull[free].min()) < size
    assert float(pull.max() - pull[free].max()) < size


@pytest.mark.parametrize("present", [3, 150])
def test_of_many_classes_the_slope_is_even_where_counts_are_free(present):
    # Karush–Kuhn–Tucker: one multiplier for all free counts, no less for those at their bounds.
    classes, stream = 300, generator(present, "many")
    root = torch.randn(classes, classes, generator=stream).double() / classes**0.5
    quadratic = root @ root.T + 0.05 * torch.eye(classes).double()
    counts = torch.zeros(classes).double()
    counts[:present] = 1 + 9 * torch.rand(present, generator=stream).double()
    noise = torch.randn(classes, generator=stream).double()
    lower = (torch.arange(classes) % 7 == 0).double()
    total = int(counts.sum() + lower.sum())
    n = Evidence(quadratic, quadratic @ counts + noise, lower, total).most_likely()
    slope = quadratic @ n - quadratic @ counts - noise
    free = n > lower + 1e-9
    assert 0 < int((~free).sum()) < classes
    assert float(n.sum()) == pytest.approx(total)
    assert bool((n >= lower).all())
    torch.testing.assert_close(slope[free], slope[free].mean().expand(int(free.sum())))
    assert float(slope[~free].min()) >= float(slope[free].mean()) - 1e-6


def test_worked_example_of_bounds():
    # Alone (5, −1, 2); without the second (4.5, 0, 1.5); with 3 or more of the third (3, 0, 3).
    evidence = Evidence(torch.eye(3).double(), torch.tensor([5.0, -1.0, 2.0]).double(),
                        torch.zeros(3).double(), 6)  # fmt: skip
    assert evidence.most_likely().tolist() == pytest.approx([4.5, 0, 1.5])
    bounded = Evidence(evidence.quadratic, evidence.linear, torch.tensor([0, 0, 3.0]).double(), 6)
    assert bounded.most_likely().tolist() == pytest.approx([3, 0, 3])
    assert bounded.whole(bounded.most_likely()).tolist() == [3, 0, 3]


def test_bounds_that_leave_one_answer_are_it():
    evidence = problem(3, 0)
    lower = torch.tensor([7.0, 0.0, 13.0]).double()
    only = Evidence(evidence.quadratic, evidence.linear, lower, 20)
    assert only.whole(only.most_likely()).tolist() == [7, 0, 13]


def test_the_prior_pulls_to_even_counts_and_nothing_else():
    flat = Evidence(
        torch.zeros(4, 4).double(), torch.zeros(4).double(), torch.zeros(4).double(), 12
    )
    assert flat.with_prior(2.0).most_likely().tolist() == pytest.approx([3, 3, 3, 3])
    sure = problem(4, 3, bounded=False, sharp=1e9)
    torch.testing.assert_close(sure.with_prior(2.0).most_likely(), sure.most_likely())
    n = torch.tensor([5.0, 1.0, 4.0, 2.0]).double()
    added = loss(flat.with_prior(2.0), n)
    assert added == pytest.approx(float((n - 3).square().sum()) / 2 / 2)


@given(st.integers(2, 7), st.integers(0, 10**6))
def test_whole_counts_are_no_worse_than_rounded_ones_and_keep_bounds_and_total(classes, seed):
    evidence = problem(classes, seed)
    n = evidence.most_likely()
    rounded, whole = round_above(n, evidence.lower, 20), evidence.whole(n)
    for counts in (rounded, whole):
        assert int(counts.sum()) == 20
        assert bool((counts >= evidence.lower).all())
    assert loss(evidence, whole.double()) <= loss(evidence, rounded.double()) + 1e-9
    # And no single unit is better anywhere else.
    for i, j in itertools.permutations(range(classes), 2):
        moved = whole.double()
        moved[i] -= 1
        moved[j] += 1
        allowed = moved[i] >= evidence.lower[i]
        assert not allowed or loss(evidence, moved) >= loss(evidence, whole.double()) - 1e-6


@given(st.integers(2, 4), st.integers(0, 10**6), st.booleans())
def test_of_independent_classes_whole_counts_are_the_best_there_are(classes, seed, bounded):
    evidence = problem(classes, seed, total=9, bounded=bounded, diagonal=True)
    best = min(loss(evidence, n) for n in all_counts(evidence))
    whole = evidence.whole(evidence.most_likely())
    assert loss(evidence, whole.double()) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_of_dependent_classes_they_are_nearly_always(seed):
    evidence = problem(4, seed, total=9, bounded=False).with_prior(2.0)
    losses = torch.tensor([loss(evidence, n) for n in all_counts(evidence)])
    whole = evidence.whole(evidence.most_likely())
    assert int((losses < loss(evidence, whole.double()) - 1e-9).sum()) <= 1


@pytest.mark.parametrize(
    ("n", "lower", "total", "expected"),
    [
        ([1.6, 0.7, 1.7], [0, 0, 0], 4, [1, 1, 2]),
        ([0.4, 3.3, 0.3], [1, 0, 0], 4, [1, 3, 0]),
        ([0.4, 2.8, 0.8], [1, 0, 1], 4, [1, 2, 1]),
        ([0.2, 0.2, 3.6], [1, 1, 0], 4, [1, 1, 2]),  # the bounds take more than rounding leaves
    ],
)
def test_rounding_above_bounds(n, lower, total, expected):
    as_tensor = lambda values: torch.tensor(values, dtype=torch.float64)
    assert round_above(as_tensor(n), as_tensor(lower), total).tolist() == expected


def enumerated(evidence):
    """Return all counts, and the posterior probability of each."""
    counts = all_counts(evidence)
    n, classes, total = counts.numpy(), counts.shape[1], evidence.total
    priors = [
        gammaln(classes * a) - gammaln(total + classes * a)
        + (gammaln(n + a) - gammaln(a) - gammaln(n + 1)).sum(1)
        for a in CONCENTRATIONS
    ]  # fmt: skip
    energy = np.array([loss(evidence, row) for row in counts])
    log_mass = logsumexp(priors, axis=0) - energy
    return counts, torch.from_numpy(np.exp(log_mass - logsumexp(log_mass)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_sampled_counts_have_the_largest_expected_overlap(seed):
    evidence = problem(3, seed, total=16, bounded=seed % 2 == 1, sharp=0.05 * 2**seed)
    counts, mass = enumerated(evidence)
    overlap = lambda n: float(mass @ torch.minimum(counts, n.double()).sum(1))
    start = round_above(evidence.lower, evidence.lower, 16)
    found = evidence.expected_overlap_counts(start, generator(seed), chains=64, steps=3000)
    assert int(found.sum()) == 16
    assert bool((found >= evidence.lower).all())
    best = max(overlap(n) for n in counts)
    assert overlap(found) > best - 0.01
    assert overlap(start) < best - 0.2  # there was something to find
