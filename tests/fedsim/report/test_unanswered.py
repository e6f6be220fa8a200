"""What a report says of attacks that fail, refuse, or find nothing: never that clients are safe."""

import re

from fedsim import api
from fedsim.report.data import RunData
from fedsim.report.defenses import Defended, trade_off
from fedsim.report.heat_map import heat_map
from fedsim.report.warnings import warnings
from fedsim.run.outcomes import NOT_SAFE
from fedsim.run.run_folder import RunFolder
from tests import unanswering as un
from tests.fedsim.report.test_run import Reader


def data_of(recordings, config):
    return RunData(RunFolder(recordings.of(config).path))


def page_of(recordings, config):
    return Reader(recordings.of(config).report.read_text())


def test_where_every_attack_crashes_the_headline_is_that_nothing_is_known(recordings):
    page = page_of(recordings, un.ALL_CRASH)
    assert f"not known label: {un.CRASH} failed" in page.text
    assert f"not known reconstruction: {un.PICTURES} failed" in page.text
    assert (
        page.text.count("attack gave an answer.") == 1 + 2 + 2
    )  # verdict; notices; picture, table
    assert f"{un.CRASH} failed on 6 of 6 updates: RuntimeError: no pivot" in page.text
    assert "Nothing could be graded: no attack gave an answer." in page.text
    assert "recovered nothing" not in page.text
    assert not [t for t in warnings(data_of(recordings, un.ALL_CRASH)) if "chance" in t]
    rows = [row for row in page.rows if row[0] in (un.CRASH, un.PICTURES)]
    assert [row[1:] for row in rows] == [
        ["label", "failed on 6 of 6 updates"],
        ["reconstruction", "failed on 6 of 6 updates"],
    ]


def test_one_that_fails_partly_one_that_refuses_and_one_that_answers_stand_apart(recordings):
    page, run = page_of(recordings, un.MIXED), data_of(recordings, un.MIXED)
    assert f"not known membership: {un.PICKY} refused" in page.text
    assert "not known label" not in page.text
    assert f"{un.PARTLY}, mean ASR over 2 of 6 updates; blind" in page.text
    assert "llg, mean ASR; blind" in page.text
    first = {row[0]: row for row in page.rows if row}
    assert f"{un.PARTLY} failed on 4 of 6 updates" in first
    assert first[un.PICKY] == [un.PICKY, "membership", "refused 6 of 6 updates"]
    assert first[un.CRASH] == [un.CRASH, "label", "failed on 6 of 6 updates"]
    assert [f"{un.PICKY}_refused", "6", "0, 1, 2", "1–2", un.REFUSAL] in page.rows
    assert "12 failures, 6 refusals" not in page.text
    assert "10 failures, 6 refusals" in page.text
    silent, partly, *chance = warnings(run)
    assert silent.startswith("No membership attack gave an answer.")
    assert silent.endswith(NOT_SAFE)
    assert f"{un.CRASH} failed on 6 of 6" in partly
    assert f"{un.PARTLY} failed on 4 of 6" in partly
    assert "Means are over the updates that an attack answered." in partly
    assert all("attack, where it gave an answer, is better than" in text for text in chance)


def test_at_chance_is_another_sentence(recordings):
    page, run = page_of(recordings, un.AT_CHANCE), data_of(recordings, un.AT_CHANCE)
    [sentence] = warnings(run)
    assert sentence.startswith("No label attack is better than chance.")
    assert f"{un.CHANCE}, mean ASR; blind" in page.text
    for word in ("not known", "gave no answer", "refusals", "of 6 updates"):
        assert word not in page.text


def test_the_map_marks_updates_without_an_answer(recordings):
    run = data_of(recordings, un.MIXED)
    curves = {curve.attack: curve for curve in run.curves}
    marked = heat_map(run, curves[un.PARTLY])
    assert "A cross is an update without an answer: the attack failed on 4 of 6" in marked.caption
    whole = heat_map(run, curves["llg"])
    assert "cross" not in whole.caption
    crosses = lambda picture: len(re.findall(r"<use ", picture.svg))
    assert crosses(marked) == crosses(whole) + 4


def test_a_defense_whose_attacks_all_failed_is_not_one_that_leaves_nothing(recordings, tmp_path):
    crashed, plain = (recordings.of(it) for it in (un.ALL_CRASH, un.AT_CHANCE))
    silent, answered = (Defended(RunData(RunFolder(it.path))) for it in (crashed, plain))
    left = silent.left[0]
    assert (left.family, left.static, left.adaptive, left.worst) == ("label", None, None, None)
    assert left.words == ("failed", "–")
    assert silent.measured == []
    page = Reader(api.report([crashed.path, plain.path], tmp_path / "both.html").read_text())
    rows = [row for row in page.rows if len(row) == 11 and row[0] == crashed.path.name]
    assert [row[3:6] for row in rows] == [
        [family, "failed", "–"] for family in ("label", "reconstruction")
    ]
    picture = trade_off([answered, silent, answered])
    assert f"no attack gave an answer: {crashed.path.name}." in picture.caption


def test_where_all_is_answered_nothing_is_said_of_failures(recordings):
    run = data_of(recordings, un.AT_CHANCE)
    assert (run.silent, run.unanswered) == ({}, [])
    assert not [text for text in warnings(run) if NOT_SAFE in text]
