"""`fedsim runs` and `fedsim export`, as a user types them."""

import csv
import json
import shutil

import pytest

from fedsim.cli import console
from tests.builders import small_config
from tests.fedsim.cli.test_main import fedsim


@pytest.fixture
def here(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recordings.copy(small_config(), tmp_path / "runs" / "a <b> [red]x")
    return tmp_path


def test_runs_are_listed_a_line_each(here, capsys):
    shutil.copytree(here / "runs" / "a <b> [red]x", here / "runs" / "stopped")
    shutil.rmtree(here / "runs" / "stopped" / "state" / "0003")
    (here / "runs" / "mine\x1b[31m").mkdir()
    code, out, err = fedsim(capsys, "runs")
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.split("  ")[0] == "run"
    assert len(lines) == 5  # three runs, an empty line, what next
    line = next(line for line in lines if line.startswith("runs/a <b> [red]x"))
    assert "finished    3/3" in line
    assert "(blind " in line
    assert any("stopped     2/3" in line for line in lines)
    assert any("unreadable" in line and "mine" in line for line in lines)
    assert "\x1b" not in out


def test_a_terminal_of_any_width_shows_all_of_it(here, capsys, monkeypatch):
    monkeypatch.setattr(console._Plain, "is_terminal", True)
    for width in (40, 80, 200):
        monkeypatch.setattr(console.out, "width", width)
        code, out, _ = fedsim(capsys, "runs")
        assert code == 0
        lines = [line for line in out.split("\r")[-1].splitlines() if "Next" not in line]
        assert all(len(line) <= width for line in lines)
        assert "finished" in out


def test_json_names_what_differs_from_the_defaults(here, capsys):
    code, out, _ = fedsim(capsys, "runs", "--json")
    [run] = json.loads(out)["runs"]
    assert code == 0
    assert (run["state"], run["rounds"], run["planned"]) == ("finished", 3, 3)
    assert run["setting"]["federation.clients"] == 4
    assert run["strongest"]["value"] > run["strongest"]["blind"]


def test_a_folder_that_is_not_there_is_refused_and_an_empty_one_is_not(here, capsys):
    code, _, err = fedsim(capsys, "runs", "nowhere")
    assert (code, err) == (2, "fedsim: FOLDER: must be an existing folder, got nowhere\n")
    (here / "none").mkdir()
    assert fedsim(capsys, "runs", "none")[:2] == (0, "No runs in none.\nNext     fedsim run\n")
    shutil.rmtree(here / "runs")
    assert fedsim(capsys, "runs")[0] == 0
    assert json.loads(fedsim(capsys, "runs", "--json")[1]) == {"runs": []}


def test_a_run_is_exported(here, capsysbinary):
    name = "runs/a <b> [red]x"

    class _Text:
        def readouterr(self):
            said = capsysbinary.readouterr()
            return type(said)(said.out.decode(), said.err.decode())

    code, out, _ = fedsim(_Text(), "export", name, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0
    assert {row["table"] for row in rows} == {"leakage", "metrics"}
    code, _, _ = fedsim(_Text(), "export", name, "--json", "--out", "run.json")
    assert code == 0
    assert json.loads((here / "run.json").read_text())["run"] == name


def test_what_is_no_run_is_not_exported(here, capsys):
    (here / "broken").mkdir()
    (here / "broken" / "config.toml").write_text("seed = 1")
    for form in ("--csv", "--json"):
        code, out, err = fedsim(capsys, "export", "broken", form)
        assert (code, out) == (1, "")
        assert "must be as it was written" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one must be given, got none"),
        (["--csv", "--json"], "exactly one must be given, got both"),
        (["--csv", "--out", "runs"], "--out: must be a file, got the folder runs"),
        (["--csv", "--out", "runs/a <b> [red]x/metrics.parquet"], "must be no file of the run"),
        (["--csv", "--out", "runs/a <b> [red]x/state/x.csv"], "must be no file of the run"),
    ],
)
def test_an_export_that_cannot_be_is_refused(arguments, message, here, capsys):
    code, _, err = fedsim(capsys, "export", "runs/a <b> [red]x", *arguments)
    assert code == 2
    assert message in err
