"""One shot: an estimate near the truth where the variance is known, and far off where fitted."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from adversary.auditing.finding import Guarantee
from adversary.auditing.one_shot import epsilon_of_normals, one_shot
from defenses.promise import Relation, gaussian_epsilon

RELATION = Relation.REPLACE_CLIENT


def cosines(seed, k, d):
    stream = np.random.default_rng(seed)
    canaries = stream.normal(size=(k, d))
    canaries /= np.linalg.norm(canaries, axis=1, keepdims=True)
    release = canaries.sum(axis=0) + stream.normal(size=d)
    return canaries @ release / np.linalg.norm(release)


def test_an_estimate_of_100_canaries_is_near_4_38():
    told = [one_shot(cosines(seed, 100, 3000), 3000, relation=RELATION) for seed in range(30)]
    assert np.mean([one.epsilon for one in told]) == pytest.approx(4.3, abs=0.25)
    assert {one.guarantee for one in told} == {Guarantee.ESTIMATE}
    assert "≈" in str(told[0])
    assert "estimate" in str(told[0])
    with pytest.raises(ValueError, match="must be a bound to refute a claim, got estimate"):
        told[0].exceeds(1.0, RELATION)


def test_a_variance_fitted_to_few_is_refused_because_it_is_far_off():
    fitted = []
    for seed in range(20):
        found = cosines(seed, 100, 3000) * 3000**0.5
        fitted.append(epsilon_of_normals(found.mean(), found.std(ddof=1), 1e-5))
    assert np.mean(fitted) > 5  # of a true 4.38
    with pytest.raises(ValueError, match="must be at least 1000 to fit a variance to, got 100"):
        one_shot(cosines(0, 100, 500), 500, relation=RELATION, fit_variance=True)


def test_opposite_canaries_are_twice_as_far_apart():
    found = cosines(0, 100, 3000)
    one, two = (one_shot(found, 3000, relation=RELATION, apart=apart).mu for apart in (1.0, 2.0))
    assert two == pytest.approx(2 * one)


@pytest.mark.parametrize("spread", [0.5, 0.9, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("mean", [-2.0, 0.0, 1.0])
def test_two_normals_by_integration(mean, spread):
    epsilon = epsilon_of_normals(mean, spread, 1e-3)

    def delta(p, q):
        inside = lambda x: max(0.0, p.pdf(x) - np.exp(epsilon) * q.pdf(x))
        return quad(inside, -25, 25, limit=500, points=[-5, -2, 0, 2, 5])[0]

    both = norm(mean, spread), norm(0, 1)
    worst = max(delta(*both), delta(*both[::-1]))
    if epsilon > 0:
        assert worst == pytest.approx(1e-3, rel=1e-3)
    else:
        assert worst <= 1e-3 + 1e-9


def test_equal_spreads_are_the_gaussian_mechanism():
    assert epsilon_of_normals(1.5, 1.0, 1e-5) == pytest.approx(gaussian_epsilon(1.5, 1e-5))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="canaries: must be at least 2, got 1"):
        one_shot(np.zeros(1), 10, relation=RELATION)
    with pytest.raises(ValueError, match="delta: must be above 0 and below 1, got 2"):
        one_shot(np.zeros(5), 10, relation=RELATION, delta=2.0)
