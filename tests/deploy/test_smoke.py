"""One deployed round of two nodes with TLS and keys; its faults are in the slow tier."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.run.run_folder import RunFolder
from tests.deploy.machines import machines

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("processes")

RUN = """
attack = "llg"
[federation]
rounds = 1
clients = 2
timeout = {timeout}
[data]
limit = 100
[model]
name = "mlp"
hidden = 16
[local]
epochs = 1
"""


def test_a_round_of_two_nodes_is_attacked(tmp_path, patience):
    folder = tmp_path / "hospitals"
    with machines(folder, 2, patience) as deployed:
        (folder / "run.toml").write_text(RUN.format(timeout=patience(120.0)))
        for number in range(2):
            settings = f'partition-id = {number}\ntruth = "{folder / "truth"}"\n'
            (folder / f"node{number}" / "node.toml").write_text(settings)
        deployed.up()
        command = [sys.executable, "-m", "fedsim", "deploy", "run", str(folder)]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "run"), "--json"], cwd=ROOT, text=True,
            capture_output=True, check=False, timeout=patience(300.0),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["uploads"]) == ("finished:completed", 2)
    rows = RunFolder(tmp_path / "run").ledger().to_pylist()
    assert {(row["round"], row["client"], row["attack"]) for row in rows} == {
        (1, "0", "llg"), (1, "1", "llg")
    }  # fmt: skip
