"""Flower's SuperLink and SuperNode with two doors shut.

    python -m fedsim.deploy.doors superlink --nodes FOLDER ARGUMENTS OF flower-superlink
    python -m fedsim.deploy.doors supernode --code own ARGUMENTS OF flower-supernode

Flower 1.41 serves nodes, the command line and the ServerApp on one port and authenticates nodes
alone: whoever reaches the port may register a key of their own or start a run. Here only the
node's part answers other machines, only keys in FOLDER are registered, and no body is read before
one of them has signed the request. A SuperNode runs
whatever code a run brings along; with `--code own` it refuses bundles with code in them, so that
what is installed on its machine, and its operator's defenses in it, cannot be replaced.
"""

import io
import ipaddress
import os
import sys
import tomllib
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from fedsim.core.pieces import MissingPiece
from fedsim.deploy.flower_private import BUNDLES, KEYS, LINK, NODE
from fedsim.deploy.signed import SignedBodies

OPEN = ("/v1/fleet/", "/health")  # what other machines may ask; nodes sign each request
FEDSIM_APP = "fedsim.federation.client_app:app"
IN_A_THIN_BUNDLE = {"pyproject.toml", ".info/CONTENT", ".info/METADATA.json"}


class OnlyNodes:
    """Answer other machines nothing but the node's part of the API: an ASGI middleware."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on what comes from this machine or is for nodes; refuse the rest."""
        if scope["type"] != "lifespan" and not _may_pass(scope):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            body = b"only from the SuperLink's own machine"
            await send({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, send)


def _may_pass(scope: Any) -> bool:
    if scope["type"] == "http" and str(scope["path"]).startswith(OPEN):
        return True
    client, server = scope.get("client"), scope.get("server")
    try:
        address = ipaddress.ip_address(client[0])
    except (TypeError, ValueError):
        return False
    return address.is_loopback or (server is not None and client[0] == server[0])


def superlink(nodes: Path) -> None:
    """Run Flower's SuperLink; the arguments are in `sys.argv`.

    Args:
        nodes: Folder of the public keys that may connect, one file `NAME.pub` each.
    """
    LINK.check()  # a door that Flower no longer asks about would stand open
    KEYS.check()
    extensions = LINK.module("get_middleware")
    from starlette.middleware import Middleware

    keys = read_keys(nodes)

    @asynccontextmanager
    async def registered(app: Any) -> AsyncIterator[None]:
        register(app.state.linkstate_factory.state(), keys)
        yield

    os.environ.pop("FORWARDED_ALLOW_IPS", None)  # nobody may say where he comes from
    extensions.get_middleware = lambda: (
        Middleware(OnlyNodes),
        Middleware(SignedBodies, keys=keys),
    )
    extensions.get_lifespan_contexts = lambda: (registered,)
    LINK.get("flower_superlink")()


def read_keys(nodes: Path) -> dict[bytes, str]:
    """Return the public keys in a folder, as Flower stores them, with their names.

    Raises:
        ValueError: A file holds no public key on an elliptic curve.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    encode, keys = KEYS.get("public_key_to_bytes"), {}
    for path in sorted(nodes.glob("*.pub")):
        key = load_ssh_public_key(path.read_bytes())
        if not isinstance(key, EllipticCurvePublicKey):
            raise ValueError(
                f"{path}: must be a public key on an elliptic curve, got {type(key).__name__}"
            )
        keys[encode(key)] = path.stem
    return keys


def register(state: Any, keys: dict[bytes, str]) -> None:
    """Register the keys that are new, and take out the nodes whose key is no longer there."""
    account, name_of_account = KEYS.get("ACCOUNT_ID"), KEYS.get("ACCOUNT_NAME")
    heartbeat, registered = KEYS.get("HEARTBEAT"), set()
    for info in state.get_node_info():
        if info.public_key in keys or info.status == "unregistered":
            registered.add(info.public_key)
        else:
            state.delete_node(account, info.node_id)
    for key, name in keys.items():
        if key not in registered:
            state.create_node(account, name_of_account, key, heartbeat, name=name)


def supernode(*, refuse_code: bool) -> None:
    """Run Flower's SuperNode; the arguments are in `sys.argv`.

    Args:
        refuse_code: Refuse runs that bring code along.
    """
    start = NODE.get("flower_supernode")
    if refuse_code:
        BUNDLES.check()  # a guard that Flower no longer calls would let everything in
        node = BUNDLES.module("pull")
        node._pull_and_store_message = refusing(node)
    start()


def refusing(node: Any) -> Callable[..., int | None]:
    """Return Flower's function that takes a message in, refusing runs that bring code along.

    A bundle without any verification, where trusted entities are asked for, is answered with an
    error: that is where the reason goes.
    """
    from flwr.app import Error

    pull, verify = node._pull_and_store_message, node._verify_fab
    Fab, code = BUNDLES.get("Fab"), BUNDLES.get("INVALID_FAB")

    def guarded(**given: Any) -> int | None:
        get_fab, trusted = given.pop("get_fab"), given.pop("trusted_entities")

        def checked(fab_hash: str, run_id: int) -> Any:
            fab = get_fab(fab_hash, run_id)
            if reason := foreign(fab.content):
                node.FAB_VERIFICATION_ERROR = Error(code, reason)
                return Fab(fab.hash_str, fab.content, {})
            return fab if trusted else Fab(fab.hash_str, fab.content, {"valid_license": "own"})

        node._verify_fab = verify if trusted else lambda *_: True
        return pull(get_fab=checked, trusted_entities=trusted or {"own": ""}, **given)

    return guarded


def foreign(bundle: bytes) -> str:
    """Return why an app bundle is not thin, "" where it is: no code, and fedsim's app."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            names = set(archive.namelist())
            project = tomllib.loads(archive.read("pyproject.toml").decode())
        components = dict(project["tool"]["flwr"]["app"]["components"])
        app = components.pop("clientapp")
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        return f"bundle: must be an app bundle ({error})"
    if extra := sorted(names - IN_A_THIN_BUNDLE):
        return f"bundle: must hold no code at this node, got {extra[0]}"
    if others := sorted(set(components) - {"serverapp"}):
        return f"bundle: must have a serverapp and a clientapp alone, got {others[0]}"
    if app != FEDSIM_APP:
        return f"bundle: must use {FEDSIM_APP} at this node, got {app}"
    return ""


def main() -> None:
    """Start the role that the first argument names, with the rest handed to Flower."""
    _, role, _, value, *rest = sys.argv
    sys.argv = [f"flower-{role}", *rest]
    try:
        if role == "superlink":
            superlink(Path(value))
        else:
            supernode(refuse_code=value != "any")
    except MissingPiece as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
