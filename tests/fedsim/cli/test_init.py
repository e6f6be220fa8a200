"""Configs that answer common questions: each runs as it is written."""

import json
import tomllib
from pathlib import Path

import pytest

from fedsim import api, config
from fedsim.cli import init
from tests.fedsim.cli.test_main import fedsim

TINY = {
    "labels": ["federation.rounds=1"],
    "members": ["federation.rounds=1", "auxiliary.candidates=20"],
    "reconstruct": ["federation.rounds=1"],
    "defense": ["federation.rounds=1", "auxiliary.candidates=20", "attack=llg-plus"],
    "claim": ["audit.trials=20", "audit.steps=2"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.e2e
@pytest.mark.parametrize("question", init.QUESTIONS)
def test_the_config_of_each_question_runs_as_it_is_written(question, here, capsys, undrawn):
    code, out, _ = fedsim(capsys, "init", question, "--json")
    assert code == 0
    written = json.loads(out)
    assert tomllib.loads(Path(written["config"]).read_text())
    command = written["next"].split()[1:]
    assert command == ["audit" if question == "claim" else "run", f"{question}.toml"]
    sets = [part for setting in TINY[question] for part in ("--set", setting)]
    code, out, err = fedsim(capsys, *command, *sets, "--out", "there", "--json")
    assert (code, err) == (0, "")
    if question != "claim":
        rows = api.Run("there").ledger().to_pylist()
        attacks = config.read(Path(f"{question}.toml"), TINY[question]).attack
        answered = {row["attack"] for row in rows if row["value"] is not None}
        assert answered == {attack.name for attack in attacks}


def test_questions_are_listed_and_asked_only_on_a_terminal(here, capsys):
    code, out, _ = fedsim(capsys, "init")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:5]] == list(init.QUESTIONS)
    assert all("?" in line for line in out.splitlines()[:5])
    assert out.endswith("Next     fedsim init labels\n")
    assert json.loads(fedsim(capsys, "init", "--json")[1]).keys() == set(init.QUESTIONS)
    assert list(here.iterdir()) == []


def test_a_question_asked_on_a_terminal_is_answered(here, capsys, monkeypatch):
    monkeypatch.setattr(init, "asks", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda _: "members")
    assert fedsim(capsys, "init")[0] == 0
    assert Path("members.toml").exists()


def test_nothing_is_overwritten(here, capsys):
    Path("labels.toml").write_text("mine")
    code, _, err = fedsim(capsys, "init", "labels")
    assert (code, err) == (2, "fedsim: --out: must be a new file, got labels.toml\n")
    assert Path("labels.toml").read_text() == "mine"
    code, out, _ = fedsim(capsys, "init", "labels", "--out", "a b.toml")
    assert code == 0
    assert "Next     fedsim run 'a b.toml'" in out
    code, _, err = fedsim(capsys, "init", "labels", "--out", "nowhere/a.toml")
    assert code == 2
    assert "must be a file that can be written" in err
    code, _, err = fedsim(capsys, "init", "lables")
    assert code == 2
    assert "did you mean 'labels'?" in err
