"""Writing a deployment: everything private to the user, nothing overwritten."""

import datetime as dt
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from fedsim.core.errors import ConfigError
from fedsim.deploy import keys, texts
from fedsim.deploy.keys import Pair
from fedsim.deploy.layout import FILE, SUPERLINK, Deployment, versions

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:]+")
NODE_PORT = 9200  # node k listens on 9200 + k, on loopback


def create(
    folder: Path,
    *,
    nodes: int,
    host: str = "localhost",
    port: int = 9100,
    node_ports: Sequence[int] | None = None,
    name: str = "fedsim",
    days: int = 365,
    now: dt.datetime | None = None,
) -> Deployment:
    """Write a deployment into a new folder.

    Args:
        folder: Where to.
        nodes: How many clients.
        host: The SuperLink's, as nodes reach it; with a name of this machine's own loopback
            interface nothing listens beyond it.
        port: The SuperLink's.
        node_ports: One for each node, on its machine's loopback interface.
        name: Of the connection.
        days: How long the certificate is valid.
        now: When it begins.

    Raises:
        ConfigError: An argument is out of range, or the folder is not empty.
    """
    now = now or dt.datetime.now(dt.UTC)
    ports = tuple(node_ports or range(NODE_PORT, NODE_PORT + nodes))
    _check(folder, nodes=nodes, host=host, ports=(port, *ports), name=name, days=days)
    deployment = Deployment(name, host, port, ports, versions())
    folder = folder.absolute()
    authority = keys.authority(name, now=now)
    server = keys.server(authority, deployment.names, days=days, now=now)
    _write_root(deployment, folder, authority)
    _write_superlink(deployment, folder, authority, server)
    for number in range(nodes):
        _write_node(deployment, folder, number, authority)
    _write(folder / FILE, deployment.dump())  # last: what has it is whole
    return deployment


def _write_root(deployment: Deployment, folder: Path, authority: Pair) -> None:
    """Write what only the machine of `fedsim deploy` needs."""
    _write(folder / "ca.key", authority.private)
    _write(folder / "ca.crt", authority.public)
    _write(folder / "run.toml", texts.run_config(deployment))
    _write(folder / "compose.yaml", texts.compose(deployment))
    _write(folder / "app" / "pyproject.toml", texts.thin_app())
    _write(folder / "connection" / "config.toml", texts.connection(deployment, folder / "ca.crt"))


def _write_superlink(deployment: Deployment, folder: Path, authority: Pair, server: Pair) -> None:
    """Write the folder of the SuperLink."""
    home = folder / SUPERLINK
    _write_role(deployment, folder, SUPERLINK, authority)
    _write(home / "server.key", server.private)
    _write(home / "server.pem", server.public)
    _write(home / "start.sh", texts.superlink_script(deployment, sys.executable), mode=0o700)
    (home / "runs").mkdir(mode=0o700)


def _write_node(deployment: Deployment, folder: Path, number: int, authority: Pair) -> None:
    """Write the folder of a node, and its public key into the SuperLink's."""
    name = deployment.nodes[number]
    home = folder / name
    pair = keys.node(f"{name}@{deployment.name}")
    _write_role(deployment, folder, name, authority)
    _write(home / "node.key", pair.private)
    _write(home / "node.pub", pair.public)
    _write(folder / SUPERLINK / "nodes" / f"{name}.pub", pair.public)
    _write(home / "node.toml", texts.node_config(deployment, number))
    script = texts.node_script(deployment, number, sys.executable)
    _write(home / "start.sh", script, mode=0o700)


def _write_role(deployment: Deployment, folder: Path, role: str, authority: Pair) -> None:
    """Write what the folder of every role holds."""
    _write(folder / role / FILE, deployment.dump())
    _write(folder / role / "ca.crt", authority.public)
    unit = texts.unit_name(deployment, role)
    _write(folder / role / unit, texts.unit(deployment, role, folder))


def _check(
    folder: Path, *, nodes: int, host: str, ports: Sequence[int], name: str, days: int
) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"deploy init: the folder must be new or empty, got {folder}")
    if nodes < 1:
        raise ConfigError(f"--nodes: must be at least 1, got {nodes}")
    if len(ports) != nodes + 1:
        raise ConfigError(
            f"--node-port: must be given once per node, got {len(ports) - 1} for {nodes}"
        )
    if not HOST.fullmatch(host):
        raise ConfigError(f"--host: must be a host name or address, got '{host}'")
    if wrong := [port for port in ports if not 1024 <= port <= 65535]:
        raise ConfigError(f"--port: must be between 1024 and 65535, got {wrong[0]}")
    if repeated := [port for port in ports if ports.count(port) > 1]:
        raise ConfigError(f"--port: all ports must differ, got {repeated[0]} twice")
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name: must be small letters, digits and dashes, got '{name}'")
    if days < 1:
        raise ConfigError(f"--days: must be at least 1, got {days}")


def _write(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a new file that nobody but the user can read, in folders of the same kind."""
    for folder in reversed([p for p in path.parents if not p.exists()]):
        folder.mkdir(mode=0o700)
    data = content.encode() if isinstance(content, str) else content
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
