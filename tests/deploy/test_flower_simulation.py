"""`flwr run .` runs the same app in Flower's own simulation, and gives the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim import api, config
from fedsim.run.run_folder import RunFolder
from tests.builders import flower_environment, rows_without_seconds, same_params

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SETTINGS = (
    "federation.rounds=2",
    "federation.clients=4",
    "federation.per_round=3",
    "data.limit=200",
)

pytestmark = [pytest.mark.deploy, pytest.mark.xdist_group("processes")]


@pytest.fixture
def flower(tmp_path):
    """An environment with a SuperLink of its own, which is stopped by its id at the end."""
    yield flower_environment(tmp_path / "flwr")
    stop_flower(tmp_path / "flwr")


def stop_flower(home):
    """Stop the processes that were started with a home of Flower's, each by its id."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"FLWR_HOME={home}".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if ours:
            os.kill(int(process.name), signal.SIGTERM)


def test_three_engines_give_the_same_bits(flower, tmp_path, patience):
    out = tmp_path / "flower"
    subprocess.run(
        [
            BIN / "flwr", "run", ".",
            "--run-config", f'out="{out}" set="{";".join(SETTINGS)}"',
            "--federation-config", "num-supernodes=4 client-resources-num-cpus=1",
        ],
        cwd=ROOT, env=flower, check=True, capture_output=True, timeout=patience(120),
    )  # fmt: skip
    patience.wait(lambda: run_status(flower).startswith("finished"), "flwr run", 240.0)
    assert run_status(flower) == "finished:completed"
    asked = config.read(None, SETTINGS)
    inline = api.run(asked, tmp_path / "inline")
    ray = api.run(config.read(None, [*SETTINGS, "engine.name=ray"]), tmp_path / "ray")
    for other in (ray.path, out):
        theirs, ours = RunFolder(other), RunFolder(inline.path)
        assert same_params(theirs.final_params(), ours.final_params())
        assert rows_without_seconds(theirs.ledger()) == rows_without_seconds(ours.ledger())
    assert (out / "report.html").exists()


def run_status(environment):
    """Return what Flower says of its only run; `flwr run` itself exits 0 when a run failed."""
    command = [BIN / "flwr", "ls", "--format", "json"]
    listed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(listed.stdout)["runs"][0]["status"]
