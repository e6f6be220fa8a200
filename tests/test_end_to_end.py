"""One real run of the command line, killed at random instants and resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from fedsim import api
from fedsim.config import dump
from fedsim.run.run_folder import RunFolder
from tests.builders import outcome, same_params, small_config

FEDSIM = Path(sys.executable).parent / "fedsim"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def fedsim(*arguments):
    return subprocess.run(
        [FEDSIM, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout


def test_a_run_killed_at_random_instants_ends_with_the_same_weights_and_ledger(tmp_path, undrawn):
    config = small_config(
        federation={"strategy": "fedadam", "rounds": 24, "per_round": 3},
        defense=[{"name": "tests.builders:sticky"}, {"name": "gaussian", "std": 0.001}],
        auxiliary={"knows_defense": False},  # rehearsals cost more than all the rest
    )
    (tmp_path / "run.toml").write_text(dump(config))
    expected = outcome(api.run(config, tmp_path / "straight").path)
    stream, path, killed = random.Random(0), tmp_path / "killed", []
    arguments = ["run", tmp_path / "run.toml", "--out", path]
    for _ in range(2):
        process = subprocess.Popen(
            [FEDSIM, *map(str, arguments)], env=ENVIRONMENT, stdout=subprocess.DEVNULL
        )
        begun = len(RunFolder(path).finished_rounds) if (path / "config.toml").exists() else 0
        while process.poll() is None:  # once it has gone on by a round, at any instant after
            if path.exists() and len(list((path / "state").glob("[0-9]*"))) > begun:
                time.sleep(stream.uniform(0, 0.4))
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed.append(max(RunFolder(path).finished_rounds))
        arguments = ["run", "--resume", "--out", path]
    assert killed[0] < 24, "the first kill came too late to test anything"
    weights, ledger = outcome(api.resume(path).path)  # a third process
    assert same_params(weights, expected[0])
    assert ledger == expected[1]
    assert len(ledger) == 24 * 3 * 2 * 5


def test_the_run_of_no_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = json.loads(fedsim("run", "--json"))
    assert result["accuracy"] > 0.9
    means = {(row["attack"], row["metric"]): row for row in result["attacks"]}
    for attack, metric, least in (
        ("llg", "asr", 0.1),
        ("eb-gls-rounds", "asr", 0.3),
        ("fedmia-rounds", "auroc", 0.08),
        ("analytic", "match_rate", 0.05),
    ):
        row = means[attack, metric]
        assert row["value"] > row["blind"] + least, (attack, row)
    assert (tmp_path / result["report"]).stat().st_size > 20_000
    rows = RunFolder(tmp_path / result["run"]).ledger().to_pylist()
    labels = [row for row in rows if row["family"] == "label"]
    assert len(labels) == 10 * 8 * 2 * 5
    assert all(row["value"] is not None for row in labels)
    pictures = [row for row in rows if row["metric"] == "psnr" and row["client"]]
    graded = {(row["round"], row["client"]) for row in pictures if row["value"] is not None}
    assert graded == {(round_, "5") for round_ in (1, 4, 7, 10)}  # the client of one step
