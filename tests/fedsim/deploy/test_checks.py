import datetime as dt
import os
import socket
import ssl
import threading

import pytest
from cryptography import x509

from fedsim.deploy import checks, keys, layout
from tests.builders import deployment, toy_dataset

NOW = dt.datetime.now(dt.UTC)


def wrong(made, folder, config=None):
    """Return the first sentence of a check that fails, None where all is good."""
    try:
        for _, look in checks.checks(made, folder, config):
            look()
    except checks.NotReady as error:
        return str(error)
    return None


def test_a_new_deployment_is_ready(tmp_path):
    made, folder = deployment(tmp_path)
    assert wrong(made, folder) is None
    for role in ("superlink", "node1"):
        assert wrong(made, folder / role) is None
    assert checks.next_start(made, folder / "node1") == str(folder / "node1" / "start.sh")


def spoil_mode(made, folder):
    (folder / "node1" / "node.key").chmod(0o640)


def spoil_registered(made, folder):
    (folder / "superlink" / "nodes" / "node1.pub").unlink()


def spoil_other_key(made, folder):
    public = (folder / "node0" / "node.pub").read_bytes()
    (folder / "superlink" / "nodes" / "node1.pub").write_bytes(public)


def spoil_server_key(made, folder):
    authority = keys.authority("x", now=NOW)
    pair = keys.server(authority, ["x"], days=1, now=NOW)
    (folder / "superlink" / "server.key").write_bytes(pair.private)


def spoil_authority(made, folder):
    (folder / "superlink" / "ca.crt").write_bytes(keys.authority("x", now=NOW).public)


def spoil_garbage(made, folder):
    (folder / "superlink" / "server.pem").write_text("-----BEGIN CERTIFICATE-----\n")


def spoil_data(made, folder):
    for number, root in enumerate((folder, folder / "nothing")):
        (folder / f"node{number}" / "node.toml").write_text(
            f'partition-id = {number}\ndata-root = "{root}"\n'
            'allow = "tests.fedsim.deploy.test_checks:in_folder"\n'
        )
    (folder / "run.toml").write_text(
        'model = "mlp"\nfederation.clients = 2\n'
        'data = "tests.fedsim.deploy.test_checks:in_folder"\n'
    )


def in_folder(root):
    list(root.iterdir())
    return toy_dataset(root)


def spoil_number(made, folder):
    (folder / "node1" / "node.toml").write_text("partition-id = 0\n")


def spoil_defense(made, folder):
    (folder / "node1" / "node.toml").write_text('partition-id = 1\ndefense = "/no/file"\n')


def spoil_clients(made, folder):
    (folder / "run.toml").write_text("federation.clients = 5\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_mode, "node1/node.key: must be readable only by you (mode 600), got 640"),
        (spoil_registered, "node1.pub: must hold the public key of node1, got no file"),
        (spoil_other_key, "node1.pub: must be the public part of"),
        (spoil_server_key, "server.key: must be the key of server.pem, got another key"),
        (spoil_authority, "server.pem: must be signed by its ca.crt, got another signature"),
        (spoil_garbage, "server.pem: must be a key or certificate"),
        (
            spoil_data,
            "node1: data.name: 'tests.fedsim.deploy.test_checks:in_folder' must return a Dataset, "
            "got FileNotFoundError",
        ),
        (spoil_number, "partition-id must be 1, got 0"),
        (spoil_defense, "node1: node defense: must be a readable TOML file, got '/no/file'"),
        (spoil_clients, "federation.clients: must be the 2 nodes, got 5"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, spoil, sentence):
    made, folder = deployment(tmp_path)
    spoil(made, folder)
    said = wrong(made, folder)
    assert said is not None
    assert sentence in said
    assert "\n" not in said


def test_a_port_in_use_is_named(tmp_path):
    made, folder = deployment(tmp_path)
    for port in (made.port, made.node_ports[1]):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            assert wrong(made, folder) == f"port {port}: must be free, got " + os.strerror(98)


def test_a_certificate_out_of_its_time_is_told_from_a_wrong_clock(tmp_path):
    made, folder = deployment(tmp_path, days=30)
    link = folder / "superlink"
    checks.check_certificate(made, link, now=NOW + dt.timedelta(days=29))
    with pytest.raises(
        checks.NotReady, match=r"server.pem: must be valid today, got one that expired"
    ):
        checks.check_certificate(made, link, now=NOW + dt.timedelta(days=31))
    with pytest.raises(
        checks.NotReady, match="clock: must be after .* UTC, when .*server.pem becomes valid"
    ):
        checks.check_certificate(made, link, now=NOW - dt.timedelta(days=1))


def test_a_certificate_without_a_name_is_told(tmp_path):
    made, folder = deployment(tmp_path)
    authority = keys.Pair((folder / "ca.key").read_bytes(), (folder / "ca.crt").read_bytes())
    pair = keys.server(authority, ["localhost", "127.0.0.1"], days=1, now=NOW)
    (folder / "superlink" / "server.pem").write_bytes(pair.public)
    certificate = x509.load_pem_x509_certificate(pair.public)
    assert keys.names_of(certificate) == {"localhost", "127.0.0.1"}
    with pytest.raises(checks.NotReady, match="must cover the name (::1|superlink), got "):
        checks.check_certificate(made, folder / "superlink")


def test_other_versions_are_told(tmp_path):
    made, folder = deployment(tmp_path)
    text = (folder / layout.FILE).read_text()
    other = text.replace(f'flwr = "{made.versions["flwr"]}"', 'flwr = "1.0.0"')
    (folder / layout.FILE).write_text(other)
    said = wrong(layout.read(folder), folder)
    assert said == f"flwr: must be 1.0.0 as on every machine, got {made.versions['flwr']}"


@pytest.mark.parametrize(("late", "good"), [(0, True), (-3600, False), (3600, False)])
def test_a_nodes_clock_is_held_against_the_superlinks(tmp_path, late, good):
    from email.utils import format_datetime

    made, folder = deployment(tmp_path, nodes=1)
    checks.check_clock(made, folder / "node0")  # nobody answers yet
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    link = folder / "superlink"
    context.load_cert_chain(link / "server.pem", link / "server.key")
    date = format_datetime(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=late), usegmt=True)
    listening = socket.create_server(("127.0.0.1", made.port))

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
            checks.check_clock(made, folder / "node0")
        else:
            with pytest.raises(
                checks.NotReady, match=r"clock: must be within 30 s .* got [+-]3[56]\d\d"
            ):
                checks.check_clock(made, folder / "node0")
    finally:
        thread.join()
        listening.close()
