"""One deployed round of two nodes with TLS and keys; its faults are in the slow tier."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim import api, config
from tests.deploy.machines import machines

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("processes")

ROUND = "federation = {{rounds = 1, clients = 2, timeout = {timeout}}}\nlocal.epochs = 1\n"
PICTURES = """
attack = "llg"
data.limit = 100
model = {name = "mlp", hidden = 16}
"""
TEXTS = """
attack = "token-rows"
data = {name = "messages", limit = 100, length = 16, vocabulary = 300, partition = "iid"}
model = {name = "gpt", width = 16, layers = 1, heads = 2}
"""


@pytest.mark.parametrize(
    ("what", "attack"),
    [(PICTURES, "llg"), pytest.param(TEXTS, "token-rows", marks=pytest.mark.deploy)],
    ids=["pictures", "texts"],
)
def test_a_round_of_two_nodes_is_attacked(what, attack, tmp_path, patience):
    folder = tmp_path / "hospitals"
    with machines(folder, 2, patience) as deployed:
        (folder / "run.toml").write_text(what + ROUND.format(timeout=patience(120.0)))
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
    shutil.copytree(folder / "truth", tmp_path / "run" / "truth")  # the nodes keep it
    setting = config.read(folder / "run.toml")
    rows = api.attack(tmp_path / "run", setting.attack).to_pylist()
    assert {(row["round"], row["client"], row["attack"]) for row in rows} == {
        (1, "0", attack), (1, "1", attack)
    }  # fmt: skip
    inline = api.run(setting, tmp_path / "inline").ledger().to_pylist()
    assert graded(rows) == pytest.approx(graded(inline))


def graded(rows):
    """Return the value of each client and metric."""
    return {(row["client"], row["metric"]): row["value"] for row in rows}
