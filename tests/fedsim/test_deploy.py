import asyncio
import datetime as dt
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import tomllib
import zipfile
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from typer.testing import CliRunner

from fedsim.cli_deploy import app
from fedsim.deploy import checks, doors, keys, layout
from fedsim.deploy import run as running
from fedsim.deploy.create import create
from fedsim.errors import BadRecording, ConfigError, RunStopped
from tests.builders import free_port, toy_dataset

NOW = dt.datetime.now(dt.UTC)


def made(tmp_path, nodes=2, **options):
    ports = [free_port() for _ in range(nodes + 1)]
    options = {"port": ports[0], "node_ports": ports[1:], **options}
    return create(tmp_path / "deployed", nodes=nodes, **options), tmp_path / "deployed"


def wrong(deployment, folder, config=None):
    """Return the first sentence of a check that fails, None where all is good."""
    try:
        for _, look in checks.checks(deployment, folder, config):
            look()
    except checks.NotReady as error:
        return str(error)
    return None


def test_everything_written_is_private_to_the_user_and_keys_are_600(tmp_path):
    old = os.umask(0)
    try:
        _, folder = made(tmp_path)
    finally:
        os.umask(old)
    files = [folder, *folder.rglob("*")]
    assert len(files) > 25
    for path in files:
        mode = path.stat().st_mode & 0o777
        scripts = path.is_dir() or path.name == "start.sh"
        assert mode == (0o700 if scripts else 0o600), path


def test_a_deployment_is_read_back_from_its_folder_and_from_each_role(tmp_path):
    deployment, folder = made(tmp_path, host="fed.example.org")
    for place in (folder, folder / "superlink", folder / "node1"):
        assert layout.read(place) == deployment
    with pytest.raises(BadRecording, match="must be a deployment, got no deployment.toml"):
        layout.read(tmp_path)
    (folder / layout.FILE).write_text("name = 3")
    with pytest.raises(BadRecording, match="must be as fedsim deploy init wrote it"):
        layout.read(folder)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nodes": 0}, "--nodes: must be at least 1, got 0"),
        ({"host": "a b"}, "--host: must be a host name or address, got 'a b'"),
        ({"host": "$(id)"}, "--host: must be"),
        ({"port": 80}, "--port: must be between 1024 and 65535, got 80"),
        ({"node_ports": [9100, 9101]}, "--port: each must be used once"),
        ({"node_ports": [9200]}, "--node-port: must be given once per node, got 1"),
        ({"name": "Fed Sim"}, "--name: must be small letters, digits and dashes, got 'Fed Sim'"),
        ({"days": 0}, "--days: must be at least 1, got 0"),
    ],
)
def test_a_wrong_argument_writes_nothing(tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("$(", r"\$\(")):
        create(tmp_path / "new", **{"nodes": 2, **options})
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path):
    _, folder = made(tmp_path)
    before = (folder / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match="must be given a new folder"):
        create(folder, nodes=2)
    assert (folder / "ca.key").read_bytes() == before


@pytest.mark.parametrize(
    ("host", "bind"),
    [
        ("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "127.0.0.1"),
        ("fed.example.org", "0.0.0.0"), ("10.0.0.7", "0.0.0.0"),
    ],
)  # fmt: skip
def test_nothing_listens_beyond_loopback_unless_the_host_was_named(tmp_path, host, bind):
    deployment, folder = made(tmp_path, host=host)
    assert f'--host "${{BIND:-{bind}}}"' in (folder / "superlink" / "start.sh").read_text()
    node = (folder / "node0" / "start.sh").read_text()
    assert "--host" not in node  # Flower's own default is loopback
    assert f"SUPERLINK:-{deployment.address}" in node.replace("'", "")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "fed.example.org"])
def test_the_certificate_holds_for_its_names_and_for_no_other(tmp_path, name):
    _, folder = made(tmp_path, host="fed.example.org")
    link = folder / "superlink"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(link / "server.pem", link / "server.key")
    assert handshake(server, folder / "ca.crt", name) is None
    assert "Hostname mismatch" in handshake(server, folder / "ca.crt", "evil.example.org")
    _, other = made(tmp_path / "other")
    assert "certificate verify failed" in handshake(server, other / "ca.crt", name)


def handshake(server, authority, name):
    """Return why a client with that authority does not trust the server, None if it does."""
    context = ssl.create_default_context(cafile=str(authority))
    if hasattr(ssl, "VERIFY_X509_STRICT"):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve():
        try:
            with server.wrap_socket(theirs, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with context.wrap_socket(ours, server_hostname=name):
            return None
    except ssl.SSLError as error:
        return str(error)
    finally:
        ours.close()
        thread.join()


def test_node_keys_are_what_flower_reads_and_registers(tmp_path):
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    _, folder = made(tmp_path, nodes=3)
    registered = doors.read_keys(folder / "superlink" / "nodes")
    assert sorted(registered.values()) == ["node0", "node1", "node2"]
    for number in range(3):
        private = load_ssh_private_key((folder / f"node{number}" / "node.key").read_bytes(), None)
        raw = public_key_to_bytes(private.public_key())
        assert registered[raw] == f"node{number}"
        assert try_load_public_key(folder / f"node{number}" / "node.pub") == raw
    assert len(registered) == 3


def test_a_file_that_is_no_key_on_a_curve_is_named(tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = ed25519.Ed25519PrivateKey.generate().public_key()
    (tmp_path / "odd.pub").write_bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    with pytest.raises(ValueError, match=r"odd.pub: must be a public key on an elliptic curve"):
        doors.read_keys(tmp_path)


def test_what_is_written_parses(tmp_path):
    deployment, folder = made(tmp_path, nodes=3, host="fed.example.org")
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    assert set(compose["services"]) == {"superlink", "node0", "node1", "node2"}
    mounts = compose["services"]["superlink"]["volumes"]
    assert not [mount for mount in mounts if "node" in mount or mount.startswith(".:")]
    app_ = tomllib.loads((folder / "app" / "pyproject.toml").read_text())
    ours = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    mine, theirs = app_["tool"]["flwr"]["app"], ours["tool"]["flwr"]["app"]
    assert mine["config"] == theirs["config"]
    assert mine["components"] == theirs["components"]
    for role in ("superlink", "node2"):
        unit = (folder / role / f"fedsim-{role}.service").read_text()
        assert f'ExecStart="{folder / role / "start.sh"}"' in unit
        subprocess.run(["sh", "-n", folder / role / "start.sh"], check=True)
    node = tomllib.loads((folder / "node2" / "node.toml").read_text())
    assert node == {"partition-id": 2, "num-partitions": 3}
    connection = tomllib.loads((folder / "connection" / "config.toml").read_text())
    assert connection["superlink"]["fedsim"]["address"] == f"localhost:{deployment.port}"


def test_a_new_deployment_is_ready(tmp_path):
    deployment, folder = made(tmp_path)
    assert wrong(deployment, folder) is None
    for role in ("superlink", "node1"):
        assert wrong(deployment, folder / role) is None
    assert checks.next_start(deployment, folder / "node1") == str(folder / "node1" / "start.sh")


def spoil_mode(deployment, folder):
    (folder / "node1" / "node.key").chmod(0o640)


def spoil_registered(deployment, folder):
    (folder / "superlink" / "nodes" / "node1.pub").unlink()


def spoil_other_key(deployment, folder):
    public = (folder / "node0" / "node.pub").read_bytes()
    (folder / "superlink" / "nodes" / "node1.pub").write_bytes(public)


def spoil_server_key(deployment, folder):
    authority = keys.authority("x", now=NOW)
    pair = keys.server(authority, ["x"], days=1, now=NOW)
    (folder / "superlink" / "server.key").write_bytes(pair.private)


def spoil_authority(deployment, folder):
    (folder / "superlink" / "ca.crt").write_bytes(keys.authority("x", now=NOW).public)


def spoil_garbage(deployment, folder):
    (folder / "superlink" / "server.pem").write_text("-----BEGIN CERTIFICATE-----\n")


def spoil_data(deployment, folder):
    for number, root in enumerate((folder, folder / "nothing")):
        (folder / f"node{number}" / "node.toml").write_text(
            f'partition-id = {number}\ndata-root = "{root}"\n'
            'allow = "tests.fedsim.test_deploy:in_folder"\n'
        )
    (folder / "run.toml").write_text(
        'model = "mlp"\nfederation.clients = 2\ndata = "tests.fedsim.test_deploy:in_folder"\n'
    )


def in_folder(root):
    list(root.iterdir())
    return toy_dataset(root)


def spoil_number(deployment, folder):
    (folder / "node1" / "node.toml").write_text("partition-id = 0\n")


def spoil_defense(deployment, folder):
    (folder / "node1" / "node.toml").write_text('partition-id = 1\ndefense = "/no/file"\n')


def spoil_clients(deployment, folder):
    (folder / "run.toml").write_text("federation.clients = 5\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_mode, "node1/node.key: must be readable by you alone (600), got 40 beyond"),
        (spoil_registered, "node1: its key must be in"),
        (spoil_other_key, "node1.pub: must be the public part of"),
        (spoil_server_key, "server.key: must be the key of server.pem, got another"),
        (spoil_authority, "server.pem: must be signed by its ca.crt, got another's"),
        (spoil_garbage, "server.pem: must be a key or certificate"),
        (spoil_data, "node1: data.root: 'tests.fedsim.test_deploy:in_folder' must be readable in"),
        (spoil_number, "partition-id must be 1, got 0"),
        (spoil_defense, "node1: node defense: must be a readable TOML file, got '/no/file'"),
        (spoil_clients, "federation.clients: must be the 2 nodes, got 5"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, spoil, sentence):
    deployment, folder = made(tmp_path)
    spoil(deployment, folder)
    said = wrong(deployment, folder)
    assert said is not None
    assert sentence in said
    assert "\n" not in said


def test_a_port_in_use_is_named(tmp_path):
    deployment, folder = made(tmp_path)
    for port in (deployment.port, deployment.node_ports[1]):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            assert wrong(deployment, folder) == f"port {port}: must be free, got " + os.strerror(98)


def test_a_certificate_out_of_its_time_is_told_from_a_wrong_clock(tmp_path):
    deployment, folder = made(tmp_path, days=30)
    link = folder / "superlink"
    checks.check_certificate(deployment, link, now=NOW + dt.timedelta(days=29))
    with pytest.raises(checks.NotReady, match=r"server.pem: must be valid today, got one that en"):
        checks.check_certificate(deployment, link, now=NOW + dt.timedelta(days=31))
    with pytest.raises(checks.NotReady, match="clock: must not be before .*server.pem's first day"):
        checks.check_certificate(deployment, link, now=NOW - dt.timedelta(days=1))


def test_a_certificate_without_a_name_is_told(tmp_path):
    deployment, folder = made(tmp_path)
    authority = keys.Pair((folder / "ca.key").read_bytes(), (folder / "ca.crt").read_bytes())
    pair = keys.server(authority, ["localhost", "127.0.0.1"], days=1, now=NOW)
    (folder / "superlink" / "server.pem").write_bytes(pair.public)
    certificate = x509.load_pem_x509_certificate(pair.public)
    assert keys.names_of(certificate) == {"localhost", "127.0.0.1"}
    with pytest.raises(checks.NotReady, match="must cover the name (::1|superlink), got it not"):
        checks.check_certificate(deployment, folder / "superlink")


def test_other_versions_are_told(tmp_path):
    deployment, folder = made(tmp_path)
    text = (folder / layout.FILE).read_text()
    other = text.replace(f'flwr = "{deployment.versions["flwr"]}"', 'flwr = "1.0.0"')
    (folder / layout.FILE).write_text(other)
    said = wrong(layout.read(folder), folder)
    assert said == f"flwr: must be 1.0.0 as on every machine, got {deployment.versions['flwr']}"


@pytest.mark.parametrize(("late", "good"), [(0, True), (-3600, False), (3600, False)])
def test_a_nodes_clock_is_held_against_the_superlinks(tmp_path, late, good):
    from email.utils import format_datetime

    deployment, folder = made(tmp_path, nodes=1)
    checks.check_clock(deployment, folder / "node0")  # nobody answers yet
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    link = folder / "superlink"
    context.load_cert_chain(link / "server.pem", link / "server.key")
    date = format_datetime(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=late), usegmt=True)
    listening = socket.create_server(("127.0.0.1", deployment.port))

    def serve():
        connection, _ = listening.accept()
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(4096)
            answer = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n"
            wrapped.sendall(answer.encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if good:
            checks.check_clock(deployment, folder / "node0")
        else:
            with pytest.raises(checks.NotReady, match=r"clock: must be within 30 s .* got [+-]36"):
                checks.check_clock(deployment, folder / "node0")
    finally:
        thread.join()
        listening.close()


def superlink_app():
    """Return Flower's own application behind our door."""
    from flwr.superlink import extensions
    from flwr.superlink.main import create_app
    from starlette.middleware import Middleware

    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(doors.OnlyNodes),)
    try:
        return create_app()
    finally:
        extensions.get_middleware = before


def asked(application, client, path):
    """Return the status with which the application answers a machine."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False, client=(client, 40000))

    async def post():
        async with httpx.AsyncClient(transport=transport, base_url="https://192.0.2.1") as browser:
            return (await browser.post(path, content=b"")).status_code

    return asyncio.run(post())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flower's own
def test_other_machines_reach_the_nodes_part_alone():
    from fastapi.routing import iter_route_contexts

    application = superlink_app()
    inner = {told.route.path for told in iter_route_contexts(application.routes)} - {"/health"}
    shut = sorted(path for path in inner if not path.startswith("/v1/fleet/"))
    assert "/v1/control/register-node" in shut
    assert "/v1/control/start-run" in shut
    assert any(path.startswith("/v1/runtime/") for path in shut)
    for path in shut:
        assert asked(application, "10.0.0.7", path) == 403, path
    for path in ("//v1/control/start-run", "/v1/fleet/../control/start-run", "/V1/control/x"):
        assert asked(application, "10.0.0.7", path) in (403, 404)
    assert asked(application, "10.0.0.7", "/v1/fleet/activate-node") != 403  # asks for a signature
    assert asked(application, "127.0.0.1", "/v1/control/list-nodes") != 403
    assert asked(application, "not-an-address", "/v1/control/list-nodes") == 403


def bundle(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return buffer.getvalue()


def project(clientapp="fedsim.client_app:app"):
    return f'[tool.flwr.app.components]\nclientapp = "{clientapp}"\n'


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flower's own
def test_the_thin_bundle_is_let_in_and_no_other(tmp_path):
    from flwr.cli.build import build_fab_from_disk

    _, folder = made(tmp_path)
    assert doors.foreign(build_fab_from_disk(folder / "app")) == ""
    (folder / "app" / "extra.py").write_text("import os")
    assert "must hold no code at this node, got extra.py" in doors.foreign(
        build_fab_from_disk(folder / "app")
    )
    other = bundle(pyproject_dot_toml=project("somebody.else:app"))
    assert doors.foreign(other) == (
        "bundle: must use fedsim.client_app:app at this node, got somebody.else:app"
    )
    assert "must be an app bundle" in doors.foreign(b"no zip")
    assert "must be an app bundle" in doors.foreign(bundle(pyproject_dot_toml="[tool]"))
    assert "must hold no code" in doors.foreign(
        bundle(pyproject_dot_toml=project(), fedsim__client_app_dot_py="x")
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flower's own
def test_keys_are_registered_once_and_those_taken_out_are_unregistered(tmp_path):
    from flwr.server.superlink.linkstate import LinkStateFactory
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    _, folder = made(tmp_path, nodes=3)
    database = str(tmp_path / "link.db")
    factory = LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database))
    state = factory.state()
    known = doors.read_keys(folder / "superlink" / "nodes")
    doors.register(state, known)
    doors.register(state, known)
    assert {(info.name, info.status) for info in state.get_node_info()} == {
        (f"node{number}", "registered") for number in range(3)
    }
    (folder / "superlink" / "nodes" / "node1.pub").unlink()
    fewer = doors.read_keys(folder / "superlink" / "nodes")
    doors.register(state, fewer)
    [gone] = set(known) - set(fewer)
    assert state.get_node_id_by_public_key(gone) is None
    assert {state.get_node_id_by_public_key(key) is None for key in fewer} == {False}


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
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))


def cli(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_failed_run_is_an_error_with_flowers_reason(tmp_path, monkeypatch):
    _, folder = made(tmp_path)
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

    _, folder = made(tmp_path)
    target = folder / "superlink" / "runs" / "run1"
    api.run(small_config(federation={"rounds": 1}), target)
    monkeypatch.setattr(running, "new_folder", lambda folder: target)
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
    _, folder = made(tmp_path)
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
    with pytest.raises(RunStopped, match="scp: must fetch other@host"):
        running.fetch(tmp_path / "there", tmp_path / "two", ssh="other@host")


def test_init_and_check_from_the_command_line(tmp_path):
    folder = tmp_path / "new"
    ports = [free_port() for _ in range(3)]
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
