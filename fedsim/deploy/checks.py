"""What must be right before a deployment starts; each check fails with one sentence.

Works on a whole deployment, and on one role's folder on the machine of that role.
"""

import datetime as dt
import socket
import ssl
import tomllib
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from fedsim.core.errors import FedsimError
from fedsim.deploy import keys
from fedsim.deploy.layout import SUPERLINK, Deployment, versions

SKEW = 300.0  # seconds by which Flower lets a node's clock be late
SECRETS = ("ca.key", "server.key", "node.key")


class NotReady(FedsimError):
    """A deployment would not work; the message gives the reason."""


Check = tuple[str, Callable[[], None]]


def checks(made: Deployment, folder: Path, config: Path | None = None) -> Iterator[Check]:
    """Yield what is checked, and the function that raises NotReady where it is wrong.

    Args:
        made: From `layout.read`.
        folder: Of the deployment, or of one role.
        config: Of the run whose data are read; by default the deployment's.

    Raises:
        NotReady: The folder is of no role.
    """
    roles = {name: path for name, path in role_folders(made, folder).items() if path.exists()}
    if not roles:
        raise NotReady(f"{folder}: must hold {SUPERLINK}/ or a node's folder, got neither")
    yield "versions", lambda: check_versions(made)
    yield "private files", lambda: check_private(folder)
    link = roles.get(SUPERLINK)
    if link is not None:
        yield "certificate and clock", lambda: check_certificate(made, link)
        yield f"port {made.port}", lambda: check_port(made.bind, made.port)
    run = run_config(made, folder, config)
    for number, name in enumerate(made.nodes):
        if name not in roles:
            continue
        home = roles[name]
        yield f"key of {name}", partial(check_key, home, name, link)
        port = made.node_ports[number]
        yield f"port {port} of {name}", partial(check_port, "127.0.0.1", port)
        yield f"data and defenses of {name}", partial(check_node, home, name, number, run)
    if link is None:
        yield f"clock of {made.address}", lambda: check_clock(made, next(iter(roles.values())))


def role_folders(made: Deployment, folder: Path) -> dict[str, Path]:
    """Return role → folder, for a whole deployment or for the folder of one role."""
    names = (SUPERLINK, *made.nodes)
    if not (folder / "ca.key").exists() and (folder / "start.sh").exists():
        mine = [name for name in names if (folder / f"{made.name}-{name}.service").exists()]
        return {mine[0]: folder} if mine else {}
    return {name: folder / name for name in names}


def check_versions(made: Deployment) -> None:
    """What is installed here must be what the deployment was made with."""
    installed = versions()
    for name, version in made.versions.items():
        if installed.get(name) != version:
            raise NotReady(
                f"{name}: must be {version} as on every machine, got {installed.get(name, 'none')}"
            )


def check_private(folder: Path) -> None:
    """No other user may read a private key."""
    for name in SECRETS:
        for path in sorted(folder.rglob(name)):
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                raise NotReady(f"{path}: must be readable only by you (mode 600), got {mode:o}")


def check_certificate(made: Deployment, link: Path, *, now: dt.datetime | None = None) -> None:
    """The server's certificate must cover its names, be valid now, and fit key and authority."""
    now = now or dt.datetime.now(dt.UTC)
    certificate, authority = _certificate(link / "server.pem"), _certificate(link / "ca.crt")
    for path, it in ((link / "server.pem", certificate), (link / "ca.crt", authority)):
        if now < it.not_valid_before_utc:
            raise NotReady(
                f"clock: must be after {it.not_valid_before_utc:%F %R} UTC, when {path} becomes "
                f"valid, got {now:%F %R}"
            )
        if now > it.not_valid_after_utc:
            raise NotReady(
                f"{path}: must be valid today, got one that expired {it.not_valid_after_utc:%F %R} "
                "UTC; make a new deployment"
            )
    covered = keys.names_of(certificate)
    if missing := set(made.names) - covered:
        raise NotReady(
            f"{link / 'server.pem'}: must cover the name {min(missing)}, "
            f"got {', '.join(sorted(covered))}"
        )
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise NotReady(
            f"{link / 'server.pem'}: must be signed by its ca.crt, got another signature"
        ) from None
    private = _read(
        link / "server.key", lambda data: serialization.load_pem_private_key(data, None)
    )
    if private.public_key() != certificate.public_key():
        raise NotReady(f"{link / 'server.key'}: must be the key of server.pem, got another key")


def check_port(host: str, port: int) -> None:
    """Nobody may listen there yet."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise NotReady(f"port {port}: must be free, got {error.strerror}") from None


def check_key(home: Path, name: str, link: Path | None) -> None:
    """A node's key must be readable, and registered where the SuperLink's folder is here too."""
    public = _read(home / "node.key", keys.public_of)
    if link is None:
        return
    registered = link / "nodes" / f"{name}.pub"
    try:
        registered_key = b" ".join(registered.read_bytes().split()[:2])
    except OSError:
        raise NotReady(f"{registered}: must hold the public key of {name}, got no file") from None
    if registered_key != public:
        raise NotReady(
            f"{registered}: must be the public part of {home / 'node.key'}, got another key"
        )


def check_node(home: Path, name: str, number: int, run: str) -> None:
    """What a node's operator decides must be valid and go with the run; its data are read."""
    from clients.operator import operator
    from clients.site import site

    try:
        settings = tomllib.loads((home / "node.toml").read_text(encoding="utf-8"))
        if settings.get("partition-id") != number:
            raise NotReady(
                f"{home / 'node.toml'}: partition-id must be {number}, "
                f"got {settings.get('partition-id')}"
            )
        node = operator(settings)
        rows = site(run, node).rows(node.client)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise NotReady(f"{home / 'node.toml'}: must be readable TOML ({error})") from None
    except NotReady:
        raise
    except FedsimError as error:
        raise NotReady(f"{name}: {error}") from None
    if not len(rows):
        raise NotReady(f"{name}: must have training rows, got none")


def check_clock(made: Deployment, home: Path) -> None:
    """A node's clock must be the SuperLink's; nothing is said where that does not answer yet."""
    context = ssl.create_default_context(cafile=str(home / "ca.crt"))
    connection = HTTPSConnection(made.host, made.port, timeout=5, context=context)
    try:
        connection.request("GET", "/health")
        date = connection.getresponse().getheader("Date")
    except ssl.SSLError as error:
        raise NotReady(f"{made.address}: must show a certificate of ca.crt ({error})") from None
    except OSError:
        return
    finally:
        connection.close()
    if date is None:
        return
    skew = (dt.datetime.now(dt.UTC) - parsedate_to_datetime(date)).total_seconds()
    if abs(skew) > SKEW / 10:
        raise NotReady(
            f"clock: must be within {SKEW / 10:g} s of the SuperLink's, got {skew:+.0f} s"
        )


def run_config(made: Deployment, folder: Path, config: Path | None) -> str:
    """Return the config of the run as JSON; of a role's folder alone, the defaults.

    Raises:
        ConfigError: It is not valid.
    """
    from fedsim import config as configs

    path = config or folder / "run.toml"
    run = configs.read(path if path.exists() or config else None)
    if run.federation.clients != len(made.nodes):
        if path.exists():
            raise NotReady(
                f"federation.clients: must be the {len(made.nodes)} nodes, "
                f"got {run.federation.clients} in {path}"
            )
        federation = run.federation.model_copy(update={"clients": len(made.nodes)})
        run = run.model_copy(update={"federation": federation})
    return configs.to_json(run)


def next_start(made: Deployment, folder: Path) -> str:
    """Return the command that starts what was checked."""
    roles = role_folders(made, folder)
    if len(roles) == 1:
        return f"{next(iter(roles.values())) / 'start.sh'}"
    return f"{folder / SUPERLINK / 'start.sh'}, each node's start.sh, fedsim deploy run {folder}"


def _certificate(path: Path) -> x509.Certificate:
    return _read(path, x509.load_pem_x509_certificate)


def _read(path: Path, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise NotReady(f"{path}: must be readable ({error.strerror})") from None
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise NotReady(f"{path}: must be a key or certificate ({error})") from None
