import json
import os
import socket
import sys
import threading
import tomllib

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from typer.testing import CliRunner

from fedsim.cli.deploy import app
from fedsim.core.errors import ConfigError, RunStopped
from fedsim.deploy import run as running
from fedsim.deploy.layout import read
from fedsim.deploy.progress import line
from tests.builders import deployment, free_port, free_ports

pytestmark = pytest.mark.usefixtures("undrawn")


def fake_flower(tmp_path, monkeypatch, status, **more):
    """Put a Flower command line of our own beside Python: it writes down what it is asked."""
    program = tmp_path / "bin" / "flwr"
    program.parent.mkdir()
    told = {"success": True, "run-id": "7", "runs": [{"status": status, **more}]}
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib, shutil\n"
        f"said = pathlib.Path({str(tmp_path / 'asked')!r}).open('a')\n"
        f"said.write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"if sys.argv[1] == 'run':\n"
        f"    shutil.copy(sys.argv[5], {str(tmp_path / 'run-config.toml')!r})\n"
        f"if sys.argv[1] != 'log':\n    print({json.dumps(told)!r})\n"
    )
    program.chmod(0o700)
    monkeypatch.setattr(running, "await_superlink", lambda port: None)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))


def cli(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_failed_run_is_an_error_with_flowers_reason(tmp_path, monkeypatch):
    _, folder = deployment(tmp_path)
    fake_flower(tmp_path, monkeypatch, "finished:failed", **{"status-details": "out of luck"})
    result = cli("run", folder, "--set", "seed=4")
    assert isinstance(result.exception, RunStopped)
    assert result.exit_code == 1
    assert str(result.exception) == "run 7: Flower says finished:failed (out of luck)"
    told = tomllib.loads((tmp_path / "run-config.toml").read_text())
    assert told == {
        "config": str(folder / "run.toml"), "set": "seed=4", "resume": False,
        "out": str(folder / "superlink" / "runs" / "run1"),
    }  # fmt: skip
    assert (tmp_path / "asked").read_text().splitlines()[1:] == [
        "log 7 fedsim --stream", "ls fedsim --run-id 7 --format json",
    ]  # fmt: skip


def test_a_completed_run_is_fetched(tmp_path, monkeypatch):
    from fedsim import api
    from tests.builders import small_config

    _, folder = deployment(tmp_path)
    target = folder / "superlink" / "runs" / "run1"
    api.run(small_config(federation={"rounds": 1}), target)
    monkeypatch.setattr(running, "new_folder", lambda folder, remote=False: target)
    fake_flower(tmp_path, monkeypatch, "finished:completed")
    result = cli("run", folder, "--out", tmp_path / "mine", "--json")
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    assert (told["uploads"], told["failures"], told["folder"]) == (4, 0, str(tmp_path / "mine"))
    assert api.Run(tmp_path / "mine").ledger().equals(api.Run(target).ledger())
    again = cli("run", folder, "--out", tmp_path / "mine")
    assert str(again.exception) == f"--out: must be a new folder, got {tmp_path / 'mine'}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "model=nothing-like-it;x"], "--set: must not hold a semicolon"),
        (["--set", "local.lr=-1.0"], "local.lr: input should be greater than 0, got -1.0"),
        (["--ssh", "me@there"], "--out: must be given with --ssh, got none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    tmp_path, monkeypatch, arguments, sentence
):
    _, folder = deployment(tmp_path)
    fake_flower(tmp_path, monkeypatch, "finished:completed")
    result = cli("run", folder, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert sentence in str(result.exception)
    assert not (tmp_path / "asked").exists()


def test_a_folder_on_another_machine_is_copied_by_scp(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "config.toml").write_text("")
    script = tmp_path / "scp"
    script.write_text(
        '#!/bin/sh\n[ "$3" = "me@host:$THERE" ] && exec cp -r "$THERE" "$4"\nexit 1\n'
    )
    script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("THERE", str(tmp_path / "there"))
    here = running.fetch(tmp_path / "there", tmp_path / "here", ssh="me@host")
    assert (here / "config.toml").exists()
    with pytest.raises(RunStopped, match="scp: other@host.* cannot be copied"):
        running.fetch(tmp_path / "there", tmp_path / "two", ssh="other@host")


def test_init_and_check_from_the_command_line(tmp_path):
    folder = tmp_path / "new"
    ports = free_ports(3)
    options = ["--port", ports[0], "--node-port", ports[1], "--node-port", ports[2]]
    said = cli("init", folder, "--nodes", 2, *options)
    assert said.exit_code == 0, said.exception
    assert said.stdout.splitlines()[-1] == f"Next     fedsim deploy check {folder}"
    told = cli("check", folder, "--json")
    assert told.exit_code == 0, told.exception
    assert "data and defenses of node1" in json.loads(told.stdout)["good"]
    last = cli("check", folder).stdout.splitlines()[-1]
    assert last.endswith(f"fedsim deploy run {folder}")
    public = load_ssh_public_key((folder / "node0" / "node.pub").read_bytes())
    assert public.curve.name == "secp384r1"


def test_a_superlink_may_be_late_but_not_for_ever():
    port = free_port()
    with pytest.raises(RunStopped, match=f"must answer on localhost:{port}, got nobody in 0.1 s"):
        running.await_superlink(port, 0.1)
    late = threading.Timer(0.3, lambda: found.append(socket.create_server(("127.0.0.1", port))))
    found: list[socket.socket] = []
    late.start()
    running.await_superlink(port)
    late.join()
    found[0].close()


def test_the_log_of_a_run_tells_of_its_nodes(tmp_path, monkeypatch):
    _, folder = deployment(tmp_path)
    fake_flower(tmp_path, monkeypatch, "finished:completed")
    program = tmp_path / "bin" / "flwr"
    facts = [{"ready": "0"}, {"training": ["0"], "round": 1}, {"replied": "0", "ok": True}]
    text = "".join(f"INFO :      {line(each)}\n" for each in facts) + "x" * 100_000
    program.write_text(
        program.read_text()
        + f"if sys.argv[1] == 'log':\n    print({text!r})\n    print('401', file=sys.stderr)\n"
    )
    news = []
    with running.flower(read(folder), folder) as flwr:
        running.follow(flwr, "7", tmp_path / "nothing", on_news=news.append)
    assert news[:2] == ["client 0 ready", "round 1: client 0 training"]
    assert news[2].startswith("client 0 uploaded after ")
