"""`fedsim run --seeds`: ordinary runs that differ by their seed, and one report."""

import json
import shutil

import pytest

from fedsim import api, sweeps
from fedsim.config import dump, seeds
from tests.builders import rows_without_seconds, small_config
from tests.fedsim.cli.test_main import fedsim

SMALL = {"federation": {"rounds": 1}, "data": {"limit": 120}}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(dump(small_config(seed=4, **SMALL)))
    return tmp_path


def test_a_setting_is_repeated_with_the_seeds_from_its_own_on(here, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr("fedsim.api.report", lambda runs, out, **_: drawn.append(runs) or out)
    monkeypatch.setattr("fedsim.report.run.write_report", lambda *_, **__: None)
    command = ("run", "run.toml", "--seeds", "2", "--out", "all")
    code, out, _ = fedsim(capsys, *command)
    assert code == 0
    assert "seed-4  finished, 1 of 1 rounds" in out
    assert out.count("Next     ") == 1
    paths = [here / "all" / name for name in ("seed-4", "seed-5")]
    assert [str(path) for path in drawn[0]] == ["all/seed-4", "all/seed-5"]
    configs = [api.Run(path).config() for path in paths]
    assert [config.seed for config in configs] == [4, 5]
    alone = api.run(small_config(seed=5, **SMALL), here / "alone")
    assert rows_without_seconds(alone.ledger()) == rows_without_seconds(api.Run(paths[1]).ledger())

    before = (paths[0] / "leakage.parquet").stat().st_mtime_ns
    shutil.rmtree(paths[1])
    code, out, _ = fedsim(capsys, *command, "--json")  # goes on
    assert code == 0
    assert json.loads(out)["runs"] == ["all/seed-4", "all/seed-5"]
    assert (paths[0] / "leakage.parquet").stat().st_mtime_ns == before


def test_ctrl_c_names_the_command_that_goes_on(here, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "sweep", stopped)
    code, _, err = fedsim(capsys, "run", "--set", "local.lr=0.5", "--seeds", "3")
    assert code == 130
    again = "fedsim run --set local.lr=0.5 --seeds 3 --out runs/digits-mlp-fedavg"
    assert f"continue with: {again}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "1 is not in the range x>=2"),
        (["--seeds", "2", "--resume"], "--seeds: the same command with --out goes on"),
        (["--seeds", "2", "--set", "seed=9223372036854775807"], "seed: must be smaller than 2**63"),
        (["--seeds", "2", "--out", "run"], "got the run run"),
    ],
)
def test_seeds_that_cannot_be_are_refused(arguments, message, here, capsys):
    (here / "run" / "rounds").mkdir(parents=True)
    code, _, err = fedsim(capsys, "run", *arguments)
    assert code == 2
    assert message in err.replace("\n", " ")


def test_seeds_are_cells():
    assert [cell.name for cell in seeds(None, ["seed=7"], 3)] == ["seed-7", "seed-8", "seed-9"]
