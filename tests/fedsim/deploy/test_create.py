import os
import socket
import ssl
import subprocess
import threading
import tomllib
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from fedsim.core.errors import BadRecording, ConfigError
from fedsim.deploy import doors, layout
from fedsim.deploy.create import create
from tests.builders import deployment


def test_everything_written_is_private_to_the_user_and_keys_are_600(tmp_path):
    old = os.umask(0)
    try:
        _, folder = deployment(tmp_path)
    finally:
        os.umask(old)
    files = [folder, *folder.rglob("*")]
    assert len(files) > 25
    for path in files:
        mode = path.stat().st_mode & 0o777
        scripts = path.is_dir() or path.name == "start.sh"
        assert mode == (0o700 if scripts else 0o600), path


def test_a_deployment_is_read_back_from_its_folder_and_from_each_role(tmp_path):
    made, folder = deployment(tmp_path, host="fed.example.org")
    for place in (folder, folder / "superlink", folder / "node1"):
        assert layout.read(place) == made
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
        ({"node_ports": [9100, 9101]}, "--port: all ports must differ, got 9100 twice"),
        ({"node_ports": [9200]}, "--node-port: must be given once per node, got 1 for 2"),
        ({"name": "Fed Sim"}, "--name: must be small letters, digits and dashes, got 'Fed Sim'"),
        ({"days": 0}, "--days: must be at least 1, got 0"),
    ],
)
def test_a_wrong_argument_writes_nothing(tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("$(", r"\$\(")):
        create(tmp_path / "new", **{"nodes": 2, **options})
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path):
    _, folder = deployment(tmp_path)
    before = (folder / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match="the folder must be new or empty"):
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
    made, folder = deployment(tmp_path, host=host)
    assert f'--host "${{BIND:-{bind}}}"' in (folder / "superlink" / "start.sh").read_text()
    node = (folder / "node0" / "start.sh").read_text()
    assert "--host" not in node  # Flower's own default is loopback
    assert f"SUPERLINK:-{made.address}" in node


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "fed.example.org"])
def test_the_certificate_holds_for_its_names_and_for_no_other(tmp_path, name):
    _, folder = deployment(tmp_path, host="fed.example.org")
    link = folder / "superlink"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(link / "server.pem", link / "server.key")
    assert handshake(server, folder / "ca.crt", name) is None
    assert "Hostname mismatch" in handshake(server, folder / "ca.crt", "evil.example.org")
    _, other = deployment(tmp_path / "other")
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

    _, folder = deployment(tmp_path, nodes=3)
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
    made, folder = deployment(tmp_path, nodes=3, host="fed.example.org")
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    assert set(compose["services"]) == {"superlink", "node0", "node1", "node2"}
    mounts = compose["services"]["superlink"]["volumes"]
    assert not [mount for mount in mounts if "node" in mount or mount.startswith(".:")]
    app_ = tomllib.loads((folder / "app" / "pyproject.toml").read_text())
    ours = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
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
    assert connection["superlink"]["fedsim"]["address"] == f"localhost:{made.port}"
