"""What an audit says of itself, and what it may be compared with."""

import pytest

from adversary.auditing.finding import Finding, Guarantee, check_comparable
from defenses import chain, clip, dp_sgd, gaussian
from defenses.promise import Relation, gaussian_epsilon
from fedsim.core.types import LocalTraining

FOUND = Finding(
    method="mu-gdp",
    guarantee=Guarantee.BOUND,
    epsilon=9.27,
    delta=1e-5,
    confidence=0.95,
    relation=Relation.REPLACE_ATTRIBUTE,
    trials=10000,
    most=36.0,
    assumes="a Gaussian mechanism",
    mu=1.9,
)


def test_a_number_is_printed_with_what_it_is():
    assert str(FOUND) == (
        "ε ≥ 9.27 at δ = 1e-05 (bound, 95 %; replace one attribute, assuming a Gaussian mechanism)"
    )


def test_replacing_is_not_held_against_a_claim_about_adding_or_removing():
    assert not FOUND.exceeds(10.0, Relation.REPLACE_EXAMPLE)
    assert FOUND.exceeds(9.0, Relation.REPLACE_ATTRIBUTE)
    with pytest.raises(ValueError, match="'replace one attribute' apart must be compared with"):
        FOUND.exceeds(4.38, Relation.ADD_OR_REMOVE_EXAMPLE)
    assert FOUND.exceeds(9.0, Relation.REPLACE_CLIENT)


@pytest.mark.parametrize(
    ("audited", "claimed", "goes"),
    [
        (Relation.REPLACE_ATTRIBUTE, Relation.REPLACE_EXAMPLE, True),
        (Relation.REPLACE_EXAMPLE, Relation.REPLACE_ATTRIBUTE, False),
        (Relation.ADD_OR_REMOVE_EXAMPLE, Relation.REPLACE_CLIENT, True),
        (Relation.ADD_OR_REMOVE_EXAMPLE, Relation.ZERO_EXAMPLE, False),
        (Relation.REPLACE_CLIENT, Relation.REPLACE_EXAMPLE, False),
    ],
)
def test_which_claim_covers_which_audit(audited, claimed, goes):
    assert claimed.covers(audited) is goes
    if goes:
        check_comparable(audited, claimed)
    else:
        with pytest.raises(ValueError, match="relation: "):
            check_comparable(audited, claimed)


@pytest.mark.parametrize(("noise", "once", "replaced"), [(0.6, 8.0, 19.1), (1.0, 4.38, 10.0)])
def test_dp_sgd_promises_less_of_a_record_that_is_replaced(noise, once, replaced):
    promise, local = dp_sgd(noise=noise).promise, LocalTraining(0.1, 16, 1, "gradient")
    assert promise.epsilon(local, 16, 1) == pytest.approx(once, abs=0.05)
    about = promise.about(Relation.REPLACE_ATTRIBUTE)
    assert about.relation == Relation.REPLACE_EXAMPLE
    assert about.epsilon(local, 16, 1) == pytest.approx(replaced, abs=0.05)
    assert about.mu(local, 16, 4) == pytest.approx(4 / noise)
    sampled = about.epsilon(local, 160, 10)  # one record in ten at a time
    assert about.mu(local, 160, 10) is None
    assert promise.epsilon(local, 160, 10) < sampled < about.epsilon(local, 16, 10)


def test_noise_on_a_clipped_update_promises_the_same_of_every_neighbour():
    promise = chain(clip(bound=1.0), gaussian(std=2.0)).promise
    local = LocalTraining(0.1, 16)
    for relation in (Relation.REPLACE_ATTRIBUTE, Relation.ADD_OR_REMOVE_EXAMPLE):
        assert promise.about(relation) is promise
    assert promise.epsilon(local, 16, 1) == pytest.approx(gaussian_epsilon(1.0, 1e-5))
    assert chain(clip(bound=1.0)).promise.about(Relation.REPLACE_EXAMPLE) is None
