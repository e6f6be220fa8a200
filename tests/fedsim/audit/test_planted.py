"""Bugs that one isotropic projection cannot see are refuted, in each seed."""

import pytest

from fedsim.audit import runs as audit_runs
from tests.fedsim.audit.test_table import CLIP, DP_SGD, audited, config

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.contract]

PLANTED = "tests.planted:"
DP = {"clip": 0.5, "noise": 2.0}


def gaussian_bug(name):
    return [CLIP, {"name": PLANTED + name, "std": 1.0}]


@pytest.fixture(autouse=True)
def few_for_calibration(monkeypatch):
    monkeypatch.setattr(audit_runs, "CALIBRATION", 10)


def refuting(tmp_path, defenses, seed, **options):
    asked = config(*defenses, **{"canary": ["natural"], "trials": 400, **options})
    result = audited(asked.model_copy(update={"seed": seed}), tmp_path)
    return {row.method: row.statistic for row in result.refuted}


@pytest.mark.parametrize(
    ("defenses", "method", "statistic", "trials"),
    [
        (gaussian_bug("forgotten_bias"), "learned-mu-gdp", "head.bias: along the canary", 60),
        (gaussian_bug("forgotten_bias"), "repeats", "the same head.bias", 60),
        ([{"name": PLANTED + "by_count", **DP}], "learned-mu-gdp", None, 100),
        (gaussian_bug("half_precision"), "learned-mu-gdp", None, 60),
    ],
)
def test_a_leak_that_nobody_expected_is_refuted(tmp_path, defenses, method, statistic, trials):
    refuted = refuting(tmp_path, defenses, 1, trials=trials)
    assert method in refuted
    assert statistic in (None, refuted[method])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("defenses", "method"),
    [
        (gaussian_bug("forgotten_bias"), "repeats"),
        (gaussian_bug("rare_failure"), "repeats"),
        ([{"name": PLANTED + "by_count", **DP}], "learned"),  # which assumes nothing
    ],
)
def test_the_leak_is_refuted_in_each_seed(tmp_path, defenses, method, seed):
    assert method in refuting(tmp_path, defenses, seed)


@pytest.mark.slow
@pytest.mark.parametrize("defenses", [[DP_SGD], [CLIP, {"name": "gaussian", "std": 1.0}]])
def test_what_is_learned_of_an_honest_mechanism_refutes_nothing(tmp_path, defenses):
    for seed in range(5):
        assert not refuting(tmp_path / str(seed), defenses, seed, trials=200)
