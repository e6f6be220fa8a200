import re

import matplotlib as mpl
import pytest

from fedsim import api
from fedsim.report.audit_rounds import audit_section
from fedsim.report.data import RunData
from fedsim.report.figures import STYLE
from fedsim.report.warnings import warnings
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config

LINKS = [{"name": "clip", "bound": 0.1}, {"name": "gaussian", "std": 0.25}]


def run_of(path, **tables):
    config = {
        "seed": 2, "defense": LINKS, "attack": ["llg"], "federation": {"rounds": 4, "clients": 10},
        "audit": {"clients": 8}, **tables,
    }  # fmt: skip
    return api.run(small_config(**config), path)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("runs") / "audited")


def test_a_section_says_what_is_claimed_and_what_kind_of_number_each_is(audited):
    with mpl.rc_context(STYLE):
        section = audit_section(RunData(RunFolder(audited.path)))
    assert section.round == 4
    kinds = {line.method: line.guarantee for line in section.lines}
    assert kinds == {
        "mean": "bound", "mu-gdp": "bound", "clopper-pearson": "bound", "one-run": "bound",
        "one-run-f-dp": "bound",
        "bayes": "credible", "one-shot": "estimate",
    }  # fmt: skip
    for name, kind in kinds.items():
        assert f">{name} ({kind})<" in section.picture.svg
    assert "“replace all of one client's data”" in section.picture.caption
    assert "δ = 1e-05" in section.picture.caption
    assert "95 %" in section.picture.caption
    assert {line.epsilon[0] for line in section.lines} == {"≥", "≈"}


def test_the_page_has_it_once_and_ranks_no_audit_among_attacks(audited):
    page = audited.report.read_text()
    assert page.count("<h2>Theory against audit</h2>") == 1
    data = RunData(RunFolder(audited.path))
    assert {curve.family for curve in data.curves} == {"label"}
    assert not re.search(r"audit-\w+, mean", page)


def test_pages_of_runs_without_audits_and_of_several(audited, tmp_path):
    plain = run_of(
        tmp_path / "plain", audit={"clients": 0}, federation={"rounds": 1, "clients": 3}
    )  # fmt: skip
    assert "Theory against audit" not in plain.report.read_text()
    both = api.report([audited.path, plain.path], tmp_path / "both.html").read_text()
    assert both.count("Theory against audit of") == 1


def test_a_refuted_claim_is_a_warning(audited, tmp_path):
    broken = [LINKS[0], {"name": "tests.fedsim.audit.test_rounds:half_noise", "std": 0.1}]
    run = run_of(tmp_path / "half", defense=broken)
    said = warnings(RunData(RunFolder(run.path)))
    assert said[0].startswith("The audit exceeds the claim of the defense. Until round 4, ε is at ")
    assert "If the claim is true, each bound is too high in at most 5 % of audits" in said[0]
    assert 'class="refuted"' in run.report.read_text()
    honest = warnings(RunData(RunFolder(audited.path)))
    assert not any("The audit" in sentence for sentence in honest)
