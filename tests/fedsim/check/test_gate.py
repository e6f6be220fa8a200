import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from fedsim.check import gate as gates
from fedsim.check.evidence import half_width
from fedsim.check.of_attacks import Ledger
from fedsim.check.of_tables import failures
from fedsim.check.output import as_json, write_junit
from fedsim.config import Part, parse_rule
from fedsim.core.errors import ConfigError
from fedsim.core.rows import Leak, Measure
from fedsim.run.ledger import leakage_table, metrics_table
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config
from tests.command import fedsim
from tests.recordings import forge_config

LEAK = Leak(
    round=1, client="0", attack="llg", family="label", metric="skill", value=0.2,
    outcome="graded", blind=0.1, seconds=0.0,
)  # fmt: skip


def row(value=0.2, **changes):
    return replace(LEAK, value=value, **changes)


def evidence(text, *rows, parts=("llg",), rounds=(), uploads=0):
    ledger = Ledger(leakage_table(rows), [Part(name=name) for name in parts], rounds, uploads)
    return ledger.evidence(parse_rule(text), 0.95)


def values(text, *rows, **options):
    shown = evidence(text, *rows, **options)
    assert shown.problems == []
    return {(value.title, value.where): value.value for value in shown.values}


ROWS = [
    row(0.1, client="0"), row(0.3, client="1"),
    row(0.5, client="0", round=2), row(0.9, client="1", round=2),
    row(0.0, client="0", round=2, adaptive=True),
]  # fmt: skip


def test_which_values_are_compared():
    each = {("llg", "round 1"): 0.2, ("llg", "round 2"): 0.7, ("llg (adaptive)", "round 2"): 0.0}
    assert values("label.skill > 1", *ROWS) == pytest.approx(each)
    del each["llg", "round 1"]
    assert values("last(label.skill) > 1", *ROWS) == pytest.approx(each)
    mean = {("llg", "all rounds"): 0.45, ("llg (adaptive)", "all rounds"): 0.0}
    assert values("mean(label.skill) > 1", *ROWS) == pytest.approx(mean)
    assert values("client(label.skill) > 1", *ROWS)["llg", "round 2, client 1"] == 0.9
    assert values("client(label.skill) < 0", *ROWS)["llg", "round 1, client 0"] == 0.1


def test_pooled_rows_do_not_count_beside_single_ones_and_baselines_only_by_name():
    pooled = row(1.0, client=None)
    assert values("label.skill > 1", *ROWS[:2], pooled) == {("llg", "round 1"): 0.2}
    alone = values("label.skill > 1", pooled)
    assert alone == {("llg", "round 1"): 1.0}
    baseline = row(1.0, attack="uniform")
    assert values("label.skill > 1", *ROWS[:2], baseline) == {("llg", "round 1"): 0.2}
    assert values("label.uniform.skill > 1", baseline) == {("uniform", "round 1"): 1.0}


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        ([], {}, "no attack on label was run"),
        ([row(attack="idlg")], {"parts": ("llg", "idlg")}, "llg: is in the config and has no rows"),
        ([row(None, outcome="failed", reason="broke")], {}, "failed on 1 of 1 update: broke"),
        ([row(), row(None, client="1", outcome="failed", reason="b")], {}, "failed on 1 of 2"),
        ([row(None, outcome="refused", reason="no head")], {}, "refused 1 of the updates"),
        ([row(None, outcome="no truth")], {}, "answered 1 updates without truth"),
        ([row(None, outcome="undefined")], {}, "not defined in 1 rounds, from 1 on"),
        ([row(math.nan)], {}, "1 values that are not finite"),
        ([row(math.inf)], {}, "1 values that are not finite"),
        ([row(metric="asr")], {}, "has no metric 'skill', only asr"),
        ([row()], {"rounds": (1, 2, 3)}, "not run on 2 recorded rounds, from 2 on"),
        ([row(), row(None, client="1")], {}, "has 1 graded rows without a value"),
        ([row(), row(None, round=2)], {}, "no value is compared in 1 rounds, from 2 on"),
    ],
)  # fmt: skip
def test_what_is_no_evidence_is_a_problem(rows, options, sentence):
    problems = evidence("label.skill > 2", *rows, **options).problems
    assert any(sentence in problem for problem in problems)


def test_an_update_that_another_attack_answered_may_be_refused_unless_it_is_named():
    rows = [row(), row(None, attack="idlg", outcome="refused", reason="no bias")]
    shown = evidence("label.skill > 2", *rows, parts=())
    assert (shown.problems, len(shown.notes)) == ([], 1)
    assert evidence("label.idlg.skill > 2", *rows, parts=()).problems


def test_clients_that_failed_are_noted():
    failed = [Measure(n, "client", "failed", 1.0, str(n), "broke") for n in range(1, 7)]
    test = Measure(1, "test", "accuracy", 0.5)
    text = "clients failed and uploaded nothing in"
    assert failures(metrics_table([test, *failed])) == [f"{text} 6 cases: 1, 2, 3, 4 and 2 more"]
    assert failures(metrics_table([failed[2]])) == [f"{text} 1 case: 3"]
    assert failures(metrics_table([test])) == []


def test_a_pooled_value_of_a_round_without_single_ones_is_compared():
    rows = [row(), row(None, round=2, outcome="undefined"), row(0.9, round=2, client=None)]
    assert values("label.skill > 1", *rows) == {("llg", "round 1"): 0.2, ("llg", "round 2"): 0.9}


def test_an_attack_on_a_part_of_the_uploads_is_noted():
    shown = evidence("label.skill > 1", row(), row(client="1"), uploads=12)
    assert (shown.problems, shown.notes) == ([], ["llg was run on 2 of 12 recorded uploads"])
    assert evidence("label.skill > 1", row(), row(client="1"), uploads=2).notes == []


def test_attacks_on_rounds_without_names_have_no_first_round():
    rows = [row(client=None, attack="linkage-cosine", family="linkage", metric="auroc", round=2)]
    assert evidence("linkage.auroc > 0.9", *rows, parts=(), rounds=(1, 2)).problems == []
    assert evidence("linkage.auroc > 0.9", *rows, parts=(), rounds=(1, 2, 3)).problems


def test_blind_limits_compare_with_each_values_own_blind_guess():
    shown = evidence("label.skill > blind + 0.2", row(0.4, blind=0.3), row(0.6, client="1"))
    assert [value.base for value in shown.values] == [pytest.approx(0.2)]
    assert evidence("label.skill > blind", row(blind=None)).problems


def test_margins_are_students_and_clients_are_clusters():
    data = np.array([0.1, 0.4, 0.5, 0.9])
    expected = stats.t.interval(0.9, 3, data.mean(), stats.sem(data))
    assert half_width(data, list("abcd"), 0.9) == pytest.approx(expected[1] - data.mean())
    twice = half_width(np.concatenate([data, data]), list("abcdabcd"), 0.9)
    assert twice == pytest.approx(expected[1] - data.mean())  # repeats say nothing more
    assert half_width(data, list("aaaa"), 0.9) is None
    assert half_width(np.zeros(4), list("abcd"), 0.9) is None  # whose width would be 0


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory):
    return recordings.copy(small_config(), tmp_path_factory.mktemp("gate") / "run").path


def test_the_exit_code_and_a_line_per_rule(finished, capsys, tmp_path):
    code, out, err = fedsim(capsys, "check", finished, "--fail-if", "label.skill > 1")
    assert (code, err) == (0, "")
    assert out.startswith("Pass     label.skill > 1: worst ")
    junit = tmp_path / "new" / "gate.xml"
    rules = "label.asr > 0", "audit.epsilon_lower > claim", "last(test.accuracy) < 0"
    flags = [part for rule in rules for part in ("--fail-if", rule)]
    code, out, err = fedsim(capsys, "check", finished, *flags, "--junit", junit)
    assert code == 3
    assert [line.split()[0] for line in out.splitlines()] == ["Fail", "Open", "Pass"]
    assert "got 'label.asr > 0' fail; 'audit.epsilon_lower > claim' open" in err
    suite = ElementTree.parse(junit).getroot()[0]
    assert [case[0].tag for case in suite] == ["failure", "error", "system-out"]
    assert (suite.get("failures"), suite.get("errors"), suite.get("tests")) == ("1", "1", "3")


def test_misuse_is_refused(finished, capsys, tmp_path):
    for arguments, sentence in (
        ([finished], "must give a rule"),
        ([finished, "--fail-if", "label.skil > 0"], "did you mean 'skill'"),
        ([finished, "--fail-if", "label.asr > 30"], "at most 1, because asr is no percentage"),
        ([finished, "--fail-if", "label.skill > blind + 20"], "at most 1"),
        ([finished, "--fail-if", "last(test.accuracy) < 90"], "at most 1"),
        ([finished, "--fail-if", "label.skill > 0", "--margin", "strickt"], "check.margin"),
        ([finished, "--fail-if", "label.skill > 0", "--confidence", "95"], "check.confidence"),
        ([tmp_path, "--fail-if", "label.skill > 0"], "must be a run"),
        ([tmp_path / "absent", "--fail-if", "label.skill > 0"], "must be a run"),
    ):
        code, _, err = fedsim(capsys, "check", *arguments)
        assert code == 2, err
        assert sentence in err
        assert len(err.strip().splitlines()) == 1


def test_a_damaged_or_an_unfinished_run_never_passes(recordings, tmp_path, capsys):
    path = recordings.copy(small_config(), tmp_path / "run").path
    forge_config(path, small_config(federation={"rounds": 5}))
    code, out, _ = fedsim(capsys, "check", path, "--fail-if", "label.skill > 1")
    assert code == 3
    assert "the run is not finished, 3 of 5 rounds are" in out
    (path / "leakage.parquet").write_bytes(b"PAR1")
    assert fedsim(capsys, "check", path, "--fail-if", "label.skill > 1")[0] == 1


def rewritten(path, *rows, accuracy=0.5):
    folder = RunFolder(path)
    metrics = metrics_table([Measure(1, "test", "accuracy", accuracy)])
    folder._tables.write(leakage_table(rows), metrics)
    return path


def test_names_with_markup_stay_xml_and_numbers_stay_json(recordings, tmp_path):
    config = small_config(attack=["llg"])
    path = recordings.copy(config, tmp_path / 'run <&"\x01 ü').path
    rows = [row(0.5, attack="<b>&\x00]]>", round=r, client=c) for r in (1, 2, 3) for c in "0123"]
    rewritten(path, *rows, *(row(0.1, round=r, client=c) for r in (1, 2, 3) for c in "0123"))
    rules = [parse_rule("label.skill > 0.3"), parse_rule("last(test.accuracy)<0.6")]
    gate = gates.check(path, rules)
    assert [verdict.word for verdict in gate.verdicts] == ["fail", "fail"]
    write_junit(gate, tmp_path / "gate.xml")
    assert "<b>" in ElementTree.parse(tmp_path / "gate.xml").getroot()[0][0][0].get("message")
    json.loads(json.dumps(as_json(gate), allow_nan=False))
    rewritten(path, *rows, accuracy=math.nan)
    verdicts = gates.check(path, rules[1:]).verdicts
    assert verdicts[0].word == "open"


def test_what_margins_decide(recordings, tmp_path):
    path = recordings.copy(small_config(attack=["llg"]), tmp_path / "run").path
    noisy = [
        row(v, round=r, client=c)
        for r in (1, 2, 3)
        for c, v in zip("0123", (0, 0.5, 0, 0.5), strict=True)
    ]
    rewritten(path, *noisy)
    word = lambda text, margin: (
        gates.check(path, [parse_rule(text)], {"margin": margin}).verdicts[0].word
    )
    for margin, words in {
        "ignore": ["fail", "pass", "pass"],
        "lenient": ["pass", "pass", "pass"],
        "strict": ["fail", "fail", "pass"],
    }.items():
        rules = "label.skill > 0.2", "label.skill > 0.3", "label.skill > 1"
        assert [word(text, margin) for text in rules] == words
    rewritten(path, *(row(0.1, round=r) for r in (1, 2, 3)))  # of one client
    assert word("label.skill > 0.4", "strict") == "open"
    assert word("label.skill > 0.0", "lenient") == "fail"
    assert word("client(label.skill) > 0.4", "strict") == "pass"


def test_the_rules_of_a_run_are_checked_before_it_begins(tmp_path):
    from fedsim import api

    config = small_config(check={"fail_if": ["label.idgl.skill > 0.3"]})
    with pytest.raises(ConfigError, match=r"check.fail_if: .* did you mean 'idlg'"):
        api.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.e2e
def test_a_planted_leak_fails_and_a_defended_run_passes(tmp_path, undrawn):
    from fedsim import api

    plain = {
        "federation": {"strategy": "fedsgd", "rounds": 2, "clients": 4},
        "local": {"epochs": 1, "lr": 0.1, "batch_size": 16},
        "attack": ["llg"],
        "check": {"fail_if": ["label.skill > 0.3"], "margin": "ignore"},
    }
    defended = {**plain, "defense": [{"name": "clip"}, {"name": "gaussian", "std": 1.0}]}
    words = {}
    for name, tables in (("plain", plain), ("defended", defended)):
        run = api.run(small_config(**tables), tmp_path / name)
        words[name] = api.check(run.path).verdicts[0].word
    assert words == {"plain": "fail", "defended": "pass"}
