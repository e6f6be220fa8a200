"""Bugs that one isotropic projection cannot see are refuted, in each seed."""

import pytest

from adversary.auditing import METHODS
from fedsim.audit import runs as audit_runs
from fedsim.config import parse
from fedsim.report.audits import write_audit_report
from tests.fedsim.audit.test_table import CLIP, DP_SGD, audited, config

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.contract, pytest.mark.untyped]

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


def test_records_that_are_clipped_together_are_refuted(tmp_path):
    pairs = [{"name": PLANTED + "clipped_pairs", **DP}]
    refuted = refuting(tmp_path, pairs, 1, trials=60, canary=["microbatch"])
    assert "mu-gdp" in refuted
    honest = [DP_SGD]
    assert not refuting(tmp_path / "honest", honest, 1, trials=60, canary=["microbatch"])


@pytest.mark.slow
def test_a_record_that_is_always_drawn_is_refuted(tmp_path):
    unsampled = config({"name": PLANTED + "unsampled", **DP}, canary=["gradient"], trials=1000)
    honest = config(DP_SGD, canary=["gradient"], trials=1000)
    drawn = {"federation": {}, "local": {"epochs": 1, "batch_size": 2}}
    for made, refuted in ((unsampled, {"subsampled"}), (honest, set())):
        sampled = parse(made.model_dump(mode="json", exclude_none=True) | drawn)
        result = audited(sampled, tmp_path / str(len(refuted)))
        assert {row.method for row in result.refuted} >= refuted
        assert bool(result.broken) == bool(refuted)
        write_audit_report([result], tmp_path / "page.html", configs="")
        assert METHODS["subsampled"].title in (tmp_path / "page.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2])  # seed 1 is in the default tier
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
    for seed in range(3):
        assert not refuting(tmp_path / str(seed), defenses, seed, trials=200)
