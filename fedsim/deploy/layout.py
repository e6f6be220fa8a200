"""What a deployment consists of, and the folder that holds it.

    deployment.toml        the names, ports and versions below
    run.toml               what is to run: a config as `fedsim run` takes it
    app/pyproject.toml     the thin app bundle
    connection/            Flower's own config, with the connection
    ca.crt ca.key          the authority; the key stays with who made the deployment
    superlink/             for the SuperLink's machine: certificate, nodes/*.pub, start.sh, runs/
    node0/ …               for each data owner: node.key, node.toml, start.sh

Each role's folder holds its own copy of deployment.toml and ca.crt and may be moved.
"""

import importlib.metadata
import ipaddress
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tomli_w

from fedsim.core.errors import BadRecording

FILE, SUPERLINK = "deployment.toml", "superlink"
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Deployment:
    """Names, ports and versions.

    Attributes:
        name: Of the connection in `flwr run . NAME`.
        host: The SuperLink's, as nodes reach it.
        port: The SuperLink's.
        node_ports: A node's own port, on its loopback interface, in the order of the nodes.
        versions: Of what it was made for: the same everywhere.
    """

    name: str
    host: str
    port: int
    node_ports: tuple[int, ...]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes' names; client k is node k."""
        return tuple(f"node{number}" for number in range(len(self.node_ports)))

    @property
    def is_local(self) -> bool:
        """Whether nothing listens beyond the loopback interface."""
        return self.host in LOCAL

    @property
    def bind(self) -> str:
        """The address that the SuperLink listens on."""
        return "127.0.0.1" if self.is_local else "0.0.0.0"

    @property
    def address(self) -> str:
        """The SuperLink's host and port, as nodes reach it."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the SuperLink's certificate must cover."""
        return tuple(dict.fromkeys((self.host, *LOCAL, SUPERLINK)))

    def dump(self) -> str:
        """Return it as TOML."""
        return tomli_w.dumps(asdict(self))


def bracketed(host: str) -> str:
    """Return a host as it stands before a port."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def read(folder: Path) -> Deployment:
    """Return the deployment in a folder, or in the folder of one of its roles.

    Raises:
        BadRecording: There is none, or it was not written by `fedsim deploy init`.
    """
    path = folder / FILE
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return Deployment(
            str(values["name"]),
            str(values["host"]),
            int(values["port"]),
            tuple(map(int, values["node_ports"])),
            dict(values["versions"]),
        )
    except FileNotFoundError:
        raise BadRecording(f"{folder}: must be a deployment, got no {FILE} in it") from None
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadRecording(f"{path}: must be as fedsim deploy init wrote it ({error})") from None


def versions() -> dict[str, str]:
    """Return the versions that must be equal on every machine."""
    names = ("fedsim", "flwr", "torch")
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: importlib.metadata.version(name) for name in names}}
