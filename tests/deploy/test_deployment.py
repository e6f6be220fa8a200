"""A SuperLink and four SuperNodes with TLS and keys on loopback: recorded, attacked, disturbed."""

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.compute as pc
import pytest

from fedsim import api, config
from fedsim.deploy import checks, keys
from fedsim.deploy import run as running
from fedsim.run.run_folder import RunFolder
from tests.builders import free_port
from tests.deploy.machines import machines

ROOT = Path(__file__).parents[2]
TIMEOUT = 50.0  # seconds for a round on an idle machine; a client takes five to start
MINUTES = 600.0  # seconds that no part of a test takes where the machine is idle
LATE = "no reply in time"

pytestmark = [pytest.mark.deploy, pytest.mark.xdist_group("processes")]

RUN = """
seed = 3
attack = ["llg", "idlg"]
[federation]
rounds = 3
clients = 4
timeout = {timeout}
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
def deployed(tmp_path_factory, patience):
    folder = tmp_path_factory.mktemp("deployed") / "hospitals"
    with machines(folder, 4, patience) as there:
        (folder / "run.toml").write_text(RUN.format(timeout=patience(TIMEOUT)))
        for number in range(4):
            settings = f'partition-id = {number}\ntruth = "{folder / "truth"}"\n'
            settings += f"defense = {CLIP}\n" if number == 3 else ""
            (folder / f"node{number}" / "node.toml").write_text(settings)
        there.up()
        yield there


def fedsim(*arguments):
    command = [sys.executable, "-m", "fedsim", "deploy", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def failures(run, round_):
    rows = RunFolder(run).metrics().to_pylist()
    failed = [row for row in rows if row["metric"] == "failed" and row["round"] == round_]
    assert len({row["client"] for row in failed}) == len(failed)
    return {row["client"]: row["reason"] for row in failed}


def norms(run):
    rows = RunFolder(run).metrics().to_pylist()
    of = [row for row in rows if row["metric"] == "update_norm" and row["round"] == 1]
    return {row["client"]: row["value"] for row in of}


def families(ledger):
    return {(row["family"], row["attack"], row["metric"]) for row in ledger.to_pylist()}


def by_key(ledger):
    keys = ("round", "client", "attack", "metric")
    return {tuple(row[key] for key in keys): row for row in ledger.to_pylist()}


def test_nobody_gets_in_without_a_registered_key_or_is_led_to_another_superlink(deployed):
    folder = deployed.folder
    for name in ("stranger", "misled"):
        shutil.copytree(folder / "node0", folder / name)
    (folder / "stranger" / "node.key").write_bytes(keys.node("stranger").private)
    other = keys.authority("other", now=dt.datetime.now(dt.UTC)).public
    (folder / "misled" / "ca.crt").write_bytes(other)
    for name in ("stranger", "misled"):
        deployed.start(name, "--port", str(free_port()), "--max-retries", "1")
    codes = [
        deployed.running[name].wait(deployed.patience(MINUTES)) for name in ("stranger", "misled")
    ]
    assert 0 not in codes
    assert "'412 Precondition Failed'" in deployed.said("stranger")
    assert "certificate verify failed" in deployed.said("misled")
    with running.flower(deployed.made, folder) as flwr:
        listed = flwr.ask("supernode", "list", deployed.made.name)["nodes"]
    assert len(listed) == 4


def test_a_node_does_not_trust_an_expired_certificate(tmp_path, patience):
    began = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    with machines(tmp_path / "old", 1, patience, days=1, now=began) as old:
        with pytest.raises(checks.NotReady, match="must be valid today, got one that expired"):
            checks.check_certificate(old.made, tmp_path / "old" / "superlink")
        old.start("superlink")
        old.wait("superlink", "Uvicorn running")
        old.start("node0", "--max-retries", "1")
        assert old.running["node0"].wait(patience(MINUTES)) != 0
        assert "certificate has expired" in old.said("node0")


def test_a_node_refuses_code_that_a_run_brings_and_the_run_fails(deployed):
    run = running.new_folder(deployed.folder)
    done = fedsim("run", deployed.folder, "--app", ROOT)
    _, said = done.communicate(timeout=deployed.patience(MINUTES))
    assert done.returncode == 1
    assert "finished:failed" in said
    assert "bundle: must hold no code at this node, got adversary/__init__.py" in said
    assert not list((run / "rounds").glob("*"))


@pytest.fixture(scope="module")
def disturbed(deployed):
    """Three rounds: one in peace, one with three faults, one after the SuperLink was killed."""
    folder = deployed.folder
    run, fetched = running.new_folder(folder), folder / "fetched"
    following = fedsim("run", folder)
    sent = run / "rounds" / "0002" / "sent.safetensors"  # the round's weights, before any message
    deployed.patience.wait(sent.exists, "round 2", 360.0)
    held = deployed.held(["node0", "node1", "node2"], sent.stat().st_mtime)
    deployed.kill("node0")  # in the middle of the round
    for pid in held["node0"] + held["node1"]:
        os.kill(pid, signal.SIGKILL)
    deployed.patience.wait((run / "state" / "0002").exists, "round 2", 360.0)
    deployed.kill("superlink")
    for pid in held["node2"]:
        os.kill(pid, signal.SIGCONT)
    _, complained = following.communicate(timeout=deployed.patience(MINUTES))
    two = RunFolder(run).ledger()
    deployed.start("superlink")
    deployed.restart("node0")
    resumed = fedsim("run", folder, "--resume", run, "--out", fetched, "--json")
    said, also = resumed.communicate(timeout=deployed.patience(MINUTES))
    return SimpleNamespace(
        folder=folder, run=run, fetched=fetched, stopped=(following.returncode, complained),
        resumed=(resumed.returncode, also), said=said, two=two,
    )  # fmt: skip


def test_every_fault_is_one_row_and_the_others_are_attacked(disturbed):
    late = failures(disturbed.run, 2)
    assert set(late) == {"0", "1", "2"}
    # Flower itself may notice a dead process before the round's time is over.
    assert {late["1"], late["2"]} <= {LATE, "ClientApp stopped responding."}
    assert late["0"] == LATE or "Node Unavailable" in late["0"]
    assert failures(disturbed.run, 1) == {}
    rows = disturbed.two.to_pylist()
    attacked = {(row["round"], row["client"], row["attack"]) for row in rows}
    expected = {(1, client) for client in "0123"} | {(2, "3")}
    assert attacked == {(*both, attack) for both in expected for attack in ("llg", "idlg")}


def test_the_truth_stays_with_the_nodes(disturbed):
    assert {row["value"] for row in RunFolder(disturbed.run).ledger().to_pylist()} == {None}
    assert not (disturbed.run / "truth").exists()


def test_a_run_whose_superlink_is_gone_is_an_error_and_goes_on_where_it_was(disturbed):
    code, said = disturbed.stopped
    assert code == 1
    assert f"continue with: fedsim deploy run {disturbed.folder} --resume {disturbed.run}" in said
    code, said = disturbed.resumed
    assert code == 0, said
    told = json.loads(disturbed.said)
    assert (told["status"], told["uploads"], told["failures"]) == ("finished:completed", 9, 3)
    assert failures(disturbed.run, 3) == {}
    ledger = RunFolder(disturbed.run).ledger()
    before = ledger.filter(pc.less(ledger["round"], 3))
    assert by_key(before) == by_key(disturbed.two)  # nothing was done again
    third = ledger.filter(pc.equal(ledger["round"], 3))
    assert set(third["client"].to_pylist()) == set("0123")
    assert (disturbed.fetched / "report.html").exists()
    assert RunFolder(disturbed.fetched).ledger().equals(ledger)


def test_a_deployed_round_is_the_inline_round(disturbed, tmp_path):
    asked = config.read(disturbed.folder / "run.toml", ["federation.rounds=1"])
    inline = api.run(asked, tmp_path / "inline")
    ours, theirs = norms(inline.path), norms(disturbed.run)
    for client in "012":
        assert theirs[client] == pytest.approx(ours[client], abs=1e-6)
    assert theirs["3"] == pytest.approx(0.125, abs=1e-6)  # its operator's defense, not the run's
    assert ours["3"] > 0.2
    assert families(inline.ledger()) == families(RunFolder(disturbed.run).ledger())
    # With the nodes' truth at hand the same values come out.
    shutil.copytree(disturbed.folder / "truth", disturbed.fetched / "truth")
    graded = api.attack(disturbed.fetched, asked.attack).to_pylist()
    for client in "012":
        values = [
            {
                (row["attack"], row["adaptive"], row["metric"]): row["value"]
                for row in rows
                if row["round"] == 1 and row["client"] == client
            }
            for rows in (graded, inline.ledger().to_pylist())
        ]
        assert values[0] == values[1]
        assert None not in values[0].values()
