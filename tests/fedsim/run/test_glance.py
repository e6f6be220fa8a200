"""Runs in a list: how they stand, what tells them apart, and folders that are none."""

import math
import os
import shutil
from dataclasses import replace

import pyarrow as pa
import pytest

from fedsim import api
from fedsim.config import Cell, Config
from fedsim.core.errors import RunStopped
from fedsim.core.rows import Leak
from fedsim.run import marks
from fedsim.run.glance import glance, glances, in_words, line_of, strongest
from fedsim.run.ledger import leakage_table
from fedsim.run.marks import locked
from fedsim.run.setting import apart, changed, listed, words
from tests.builders import small_config


@pytest.fixture
def run(recordings, tmp_path):
    return recordings.copy(small_config(), tmp_path / "runs" / "run").path


def test_a_run_is_finished_running_stopped_or_failed(run):
    state = lambda: (glance(run).state, glance(run).rounds, glance(run).planned)
    assert state() == ("finished", 3, 3)
    with locked(run):
        assert state() == ("running", 3, 3)
    shutil.rmtree(run / "state" / "0003")
    assert state() == ("stopped", 2, 3)
    with pytest.raises(RunStopped), marks.failing(run):
        raise RunStopped("round 3: a client must succeed,\ngot none")
    assert state() == ("failed", 2, 3)
    assert glance(run).reason == "round 3: a client must succeed, got none"
    with pytest.raises(KeyboardInterrupt), marks.failing(run):
        raise KeyboardInterrupt
    assert state() == ("stopped", 2, 3)


def test_looking_at_a_run_writes_nothing_and_is_no_hindrance_to_running_it(run):
    before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")}
    glances([run.parent])
    assert {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")} == before
    (run / ".lock").unlink(missing_ok=True)
    assert not marks.is_locked(run)
    assert not (run / ".lock").exists()


def test_a_run_that_fails_in_a_late_round_says_why_and_goes_on_without_it(tmp_path, undrawn):
    def broken(done):
        if done.number == 1:
            raise RunStopped("round 2: the disk must answer, got nothing")

    with pytest.raises(RunStopped):
        api.run(small_config(federation={"rounds": 2}), tmp_path / "run", on_round=broken)
    assert glance(tmp_path / "run").reason == "round 2: the disk must answer, got nothing"
    assert glance(tmp_path / "run").state == "failed"
    api.resume(tmp_path / "run")
    assert line_of(glance(tmp_path / "run")).startswith("finished, 2 of 2 rounds, accuracy ")
    assert not (tmp_path / "run" / marks.FAILED).exists()


def test_folders_that_are_no_runs_are_a_line_each(run):
    runs = run.parent
    (runs / "sweep" / "lr=1").mkdir(parents=True)
    shutil.copytree(run, runs / "sweep" / "lr=2")
    (runs / "broken").mkdir()
    (runs / "broken" / "config.toml").write_text("seed = 1")
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / "config.toml")
    (runs / "damaged").mkdir()
    for name in ("config.toml", "leakage.parquet"):
        shutil.copy(run / name, runs / "damaged")
    with (runs / "damaged" / "leakage.parquet").open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    (runs / "tape" / "rounds" / "0001").mkdir(parents=True)
    (runs / "empty").mkdir()
    (runs / ".hidden").mkdir()
    (runs / "file").write_text("")
    (runs / "link").symlink_to(run)
    states = {each.path.relative_to(runs).as_posix(): each.state for each in glances([runs])}
    assert states == {
        "run": "finished",
        "sweep/lr=2": "finished",
        "tape": "recorded",
        **dict.fromkeys(("broken", "pipe", "damaged", "empty"), "unreadable"),
    }
    assert all(each.reason for each in glances([runs]) if each.state == "unreadable")
    assert [each.path for each in glances([run, run])] == [run]


def test_audits_games_and_evidence_beside_runs_are_none(run):
    runs = run.parent
    for folder, *files in (
        ("audit", "audit.parquet", "audit.html"),
        ("game", "games.parquet", "report.html"),
        ("pack", "evidence.md", "config.toml", "leakage.parquet"),
    ):
        (runs / folder).mkdir()
        for name in files:
            (runs / folder / name).touch()
    (run / "audit").mkdir()
    (run / "audit" / "audit.parquet").touch()
    assert [each.path for each in glances([runs])] == [run]
    assert glances([runs / "pack"]) == []


def test_the_oldest_is_the_first(run):
    newer = run.with_name("another")
    shutil.copytree(run, newer)
    os.utime(run / "config.toml", (2e9, 2e9))
    assert [each.path for each in glances([run.parent])] == [newer, run]


def _leak(attack, value, blind, metric="asr", family="label", client="0"):
    row = {"round": 1, "client": client, "attack": attack, "family": family, "metric": metric}
    outcome = "undefined" if value is None else "graded"
    return Leak(**row, value=value, blind=blind, seconds=0.0, ceiling=1.0, outcome=outcome)


@pytest.mark.worked
def test_the_strongest_attack_finds_most_of_what_blind_leaves_open():
    rows = [
        _leak("idlg", 0.9, 0.8),
        _leak("llg", 0.8, 0.5),
        _leak("llg", 0.6, 0.5, client="1"),
        _leak("llg", 0.0, 0.9, client=None),  # pooled beside single clients
        _leak("random", 1.0, 0.0),  # a baseline is none
    ]
    best = strongest(leakage_table(rows))
    assert (best.attack, best.metric) == ("idlg", "asr")  # 0.5 of what is open, llg 0.4
    assert best.skill == pytest.approx(0.5)
    best = strongest(leakage_table(rows[1:]))
    assert (best.attack, best.value, best.skill) == ("llg", pytest.approx(0.7), pytest.approx(0.4))


@pytest.mark.worked
def test_where_nothing_is_above_blind_it_is_said_why():
    def rows(*pairs):
        return leakage_table([_leak(name, *values) for name, *values in pairs])

    failed = replace(_leak("llg", None, None), outcome="failed")
    words = lambda table: in_words(table, strongest(table))
    assert words(rows(("llg", 0.5, 0.5))) == "none above blind on average"
    assert words(rows(("llg", math.nan, 0.5))) == "not graded: no finite value"
    assert words(rows()) == words(rows(("random", 1.0, 0.5))) == "–"
    assert words(leakage_table([failed])) == "no attack answered"
    truthless = replace(failed, attack="idlg", outcome="no truth")
    assert words(leakage_table([truthless])) == "not graded: no truth"
    both = leakage_table([failed, _leak("llg", 0.5, 0.25), _leak("idlg", 0.25, 0.25)])
    text = "llg 50.0 % (blind 25.0 %); 1 of 2 attacks did not answer every update"
    assert words(both) == text


def test_an_attack_at_the_blind_guess_is_not_the_strongest():
    assert strongest(leakage_table([_leak("llg", 0.5, 0.5), _leak("idlg", 0.1, 0.5)])) is None
    assert strongest(leakage_table([_leak("llg", None, None)])) is None
    assert strongest(leakage_table([])) is None
    assert isinstance(leakage_table([]), pa.Table)


@pytest.mark.worked
def test_runs_are_told_apart_by_what_differs():
    first = small_config(local={"lr": 0.5}, seed=3)
    second = small_config(defense=[{"name": "clip", "bound": 1.0}], seed=3)
    texts = [words(of) for of in apart([first, second])]
    assert texts[0] == "local.lr 0.5"
    assert "defense clip(bound=1.0)" in texts[1]
    assert "seed" not in "".join(texts)  # both have it
    alone = words(changed(first))
    assert "seed 3" in alone
    assert apart([first]) == apart([first, first])[:1] == [changed(first)]
    long = small_config(attack=[{"name": "llg"}, {"name": "idlg"}, {"name": "x:" + "y" * 99}])
    assert "…" in words(changed(long))
    assert words({}) == "defaults"


def test_a_grid_lists_what_is_not_the_default_of_each_cell():
    cells = [Cell("run", Config()), Cell("b", Config.model_validate({"local": {"lr": 0.5}}))]
    assert listed(cells) == "run\n  defaults\n\nb\n  local.lr = 0.5"
