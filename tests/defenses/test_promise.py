import pytest

from defenses import chain, clip, gaussian
from defenses.promise import Relation, gaussian_epsilon
from fedsim.core.types import LocalTraining

LOCAL = LocalTraining(0.1, 8)


# papers/inference.md, section 4: noise multipliers of the Gaussian mechanism at δ = 1e-5.
@pytest.mark.parametrize(("epsilon", "sigma"), [(1, 3.7306), (2, 1.9938), (4, 1.0812), (8, 0.6002)])
def test_known_values_of_the_gaussian_mechanism(epsilon, sigma):
    assert gaussian_epsilon(1 / sigma, 1e-5) == pytest.approx(epsilon, abs=2e-3)


def test_the_ends():
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_epsilon(1e-9, 1e-5) == 0  # below δ already at ε = 0
    assert gaussian_epsilon(200.0, 1e-5) == pytest.approx(200**2 / 2 + 200 * 4.265, rel=1e-3)


def test_noise_after_a_bound_is_a_mechanism():
    promise = chain(clip(bound=2.0), gaussian(std=8.0, delta=1e-6)).promise
    assert promise.formal
    assert promise.delta == 1e-6
    # Two updates of norm 2 are 4 apart; 9 rounds are 3 times as far.
    assert promise.epsilon(LOCAL, 50, 1) == gaussian_epsilon(0.5, 1e-6)
    assert promise.epsilon(LOCAL, 50, 9) == gaussian_epsilon(1.5, 1e-6)


@pytest.mark.parametrize(
    "links",
    [
        [],
        [gaussian(std=1.0)],
        [gaussian(std=1.0), clip(bound=1.0)],
        [clip(bound=1.0), gaussian(std=0.0)],
        [clip(bound=1.0, per_layer=True), gaussian(std=1.0)],
    ],
)
def test_anything_else_is_no_guarantee(links):
    promise = chain(*links).promise
    assert not promise.formal
    assert promise.epsilon is None
    assert promise.statement


@pytest.mark.parametrize("relation", Relation)
def test_only_relations_that_replace_keep_the_size(relation):
    assert relation.replaces is str(relation).startswith("replace")
