"""The door before Flower's: a request of a node is looked at before a byte of its body is read.

Flower reads and parses a body first and checks who sent it afterwards, so that anybody who reaches
the port could fill the SuperLink's memory. A node signs a timestamp in the headers, which suffice
to know it. Without a registered key and its signature the answer is 412, the connection is closed,
and nothing of the body is held. What a node sends has a limit too; Flower cuts a model into pieces
of 5 MiB.
"""

import datetime as dt
from base64 import b64decode
from collections.abc import Callable, Container
from typing import Any

from fedsim.core.accepts import Rule
from fedsim.deploy.flower_private import KEYS

MOST = 64 * 2**20  # bytes of one body
KEY = Rule("deployment", "request to the SuperLink", "must be signed by a registered node")
BODY = Rule("deployment", "body of a node's request", "must have at most 64 MiB")
CHECKS = (KEY, BODY)
FLEET, HEALTH = "/v1/fleet/", "/health"


class SignedBodies:
    """Pass on what a registered node has signed, up to a size: an ASGI middleware.

    Args:
        app: What it stands before.
        keys: The public keys that may connect, as Flower stores them.
        most: Bytes of one body.
    """

    def __init__(self, app: Callable[..., Any], keys: Container[bytes], most: int = MOST) -> None:
        self.app, self.keys, self.most = app, keys, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 412 or 413 before the body is held, or let the application answer."""
        path = str(scope.get("path", ""))
        if scope["type"] == "http" and path.startswith(HEALTH):
            receive = _empty  # nobody needs a body to ask for it
        if scope["type"] != "http" or not path.startswith(FLEET):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        if not is_signed(headers, self.keys):
            await _answer(send, 412, KEY)  # at 401 a node ends as if all were well
            return
        length = headers.get("content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self.most:
            await _answer(send, 413, BODY)
            return
        body = _Bounded(receive, send, self.most)
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if not body.over:
                raise
        if body.over:
            await _answer(send, 413, BODY)


class _Bounded:
    """A body that ends when it is too long, and the answer that is then kept back."""

    def __init__(self, receive: Any, send: Any, most: int) -> None:
        self._receive, self._send, self._left = receive, send, most
        self.over = False

    async def receive(self) -> Any:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.over = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Any) -> None:
        if not self.over:
            await self._send(message)


def is_signed(headers: dict[str, bytes], keys: Container[bytes]) -> bool:
    """Return whether a registered key has signed the time in a request's headers, just now.

    Args:
        headers: By their names in small letters.
        keys: The registered public keys.
    """
    try:
        key = b64decode(headers[KEYS.get("KEY_HEADER")], validate=True)
        if key not in keys:  # before any arithmetic
            return False
        signature = b64decode(headers[KEYS.get("SIGNATURE_HEADER")], validate=True)
        time = headers[KEYS.get("TIME_HEADER")]
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(time.decode("ascii"))
        drift = KEYS.get("DRIFT")
        if not -drift < age.total_seconds() < KEYS.get("LIFETIME") + drift:
            return False
        public = KEYS.get("bytes_to_public_key")(key)
        return bool(KEYS.get("verify_signature")(public, time, signature))
    except (KeyError, ValueError, TypeError):
        return False


async def _empty() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _answer(send: Any, status: int, rule: Rule) -> None:
    headers = [(b"connection", b"close"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = f"{rule.field}: {rule.rule}".encode()
    await send({"type": "http.response.body", "body": body})
