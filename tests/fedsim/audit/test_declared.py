"""A user's mechanism says what it is, and which neighbours its claim is about."""

import pytest

from defenses.promise import Relation, gaussian_epsilon, mu_of_epsilon
from tests.fedsim.audit.test_table import audited, config

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.contract, pytest.mark.untyped]


def test_the_mu_of_an_epsilon_is_the_inverse():
    for mu in (0.1, 1.0, 7.0):
        assert mu_of_epsilon(gaussian_epsilon(mu, 1e-5), 1e-5) == pytest.approx(mu)


def test_a_declared_gaussian_mechanism_is_held_against_what_it_declares(tmp_path):
    own = {"canary": ["gradient"], "relation": "replace", "claim": 4.38, "trials": 60}
    own |= {"mechanism": "tests.fedsim.audit.test_table:noisy", "mechanism_type": "gaussian"}
    result = audited(config(**own), tmp_path / "honest")
    assert result.verdict is None
    assert {row.relation for row in result.rows} == {Relation.REPLACE_EXAMPLE}
    assert result.claim.mu == pytest.approx(1.0, abs=1e-3)
    tests = {row.method for row in result.rows if row.joint is not None}
    assert {"mu-gdp", "learned-mu-gdp", "repeats"} <= tests
    broken = own | {"mechanism": "tests.fedsim.audit.test_table:fixed"}
    result = audited(config(**broken), tmp_path / "broken")
    assert {"mu-gdp", "repeats"} <= {row.method for row in result.refuted}
