"""A SuperLink and three SuperNodes with TLS and keys on loopback: recorded, attacked, disturbed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim import api, config
from fedsim.run_folder import RunFolder
from tests.deploy.machines import machines, wait

ROOT = Path(__file__).parents[2]
TIMEOUT = 45  # seconds for a round; a client's process takes five to start, more where busy

pytestmark = pytest.mark.deploy

RUN = f"""
seed = 3
attack = ["llg", "idlg"]
[federation]
rounds = 2
clients = 3
timeout = {TIMEOUT}.0
[data]
limit = 200
[model]
name = "mlp"
hidden = 16
[local]
epochs = 1
"""
CLIP = "'''\n[[defense]]\nname = \"clip\"\nbound = 0.125\n'''"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployed") / "hospitals"
    with machines(folder, 3) as there:
        (folder / "run.toml").write_text(RUN)
        truth = folder / "truth"
        for number in range(3):
            settings = f'partition-id = {number}\nnum-partitions = 3\ntruth = "{truth}"\n'
            settings += f"defense = {CLIP}\n" if number == 2 else ""
            (folder / f"node{number}" / "node.toml").write_text(settings)
        there.up()
        yield there


def fedsim(*arguments):
    command = [sys.executable, "-m", "fedsim.cli", "deploy", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def failures(run):
    rows = RunFolder(run).metrics().to_pylist()
    return [
        (row["round"], row["client"], row["reason"]) for row in rows if row["metric"] == "failed"
    ]


def test_a_node_refuses_code_that_a_run_brings_and_the_run_fails(deployed):
    done = fedsim("run", deployed.folder, "--app", ROOT)
    _, said = done.communicate(timeout=200)
    assert done.returncode == 1
    assert "finished:failed" in said
    assert "bundle: must hold no code at this node, got adversary/__init__.py" in said
    assert not list((deployed.folder / "superlink" / "runs" / "run1" / "rounds").glob("*"))


def test_two_rounds_with_a_node_killed_in_the_second(deployed, tmp_path):
    folder = deployed.folder
    run, fetched = folder / "superlink" / "runs" / "run2", tmp_path / "fetched"
    following = fedsim("run", folder, "--out", fetched, "--json")
    wait((run / "state" / "0001").exists, "round 1")
    deployed.client_process("node1")  # it has taken up round 2
    deployed.kill("node1")
    said, complained = following.communicate(timeout=3 * TIMEOUT)
    assert following.returncode == 0, complained
    told = json.loads(said)
    assert (told["status"], told["uploads"], told["failures"]) == ("finished:completed", 5, 1)
    for place in (run, fetched):
        [(round_, client, reason)] = failures(place)
        assert (round_, client) == (2, "1")
        assert "Node Unavailable" in reason or reason == "no reply in time"
        assert (place / "report.html").exists()

    ledger = RunFolder(run).ledger().to_pylist()
    attacked = {(row["round"], row["client"], row["attack"]) for row in ledger}
    expected = {(1, client) for client in "012"} | {(2, client) for client in "02"}
    assert attacked == {(*both, attack) for both in expected for attack in ("llg", "idlg")}
    assert {row["value"] for row in ledger} == {None}  # the truth stays with the nodes
    assert not (run / "truth").exists()

    asked = config.read(folder / "run.toml", ["federation.rounds=1"])
    inline = api.run(asked, tmp_path / "inline")
    ours, theirs = norms(inline.path), norms(run)
    assert [theirs[client] for client in "01"] == pytest.approx(
        [ours[client] for client in "01"], abs=1e-6
    )
    assert theirs["2"] == pytest.approx(0.125, abs=1e-6)  # its operator's defense, not the run's
    assert ours["2"] > 0.2

    (run / "truth").symlink_to(folder / "truth")
    assert families(inline.path) == families(run)
    graded = api.attack(run, asked.attack).to_pylist()
    assert {row["value"] is None for row in graded} == {False}
    for attack in ("llg", "idlg"):
        values = [
            {row["client"]: row["value"] for row in rows if row["attack"] == attack
             and row["round"] == 1 and row["metric"] == "asr" and row["client"] in ("0", "1")}
            for rows in (graded, inline.ledger().to_pylist())
        ]  # fmt: skip
        assert values[0] == values[1]


def norms(run):
    rows = RunFolder(run).metrics().to_pylist()
    return {
        row["client"]: row["value"]
        for row in rows
        if row["metric"] == "update_norm" and row["round"] == 1
    }


def families(run):
    return {
        (row["family"], row["attack"], row["metric"]) for row in RunFolder(run).ledger().to_pylist()
    }
