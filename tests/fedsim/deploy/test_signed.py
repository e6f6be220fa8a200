import asyncio
import datetime as dt
import resource
import socket
import threading
import time
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedsim.deploy.flower_private import KEYS
from fedsim.deploy.signed import MOST, SignedBodies, is_signed
from tests.builders import free_port

MINE, OTHER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))


def public(private):
    return KEYS.get("public_key_to_bytes")(private.public_key())


def signed(private=MINE, age=0.0, key=None):
    """The headers that a SuperNode sends."""
    from flwr.supercore.primitives.asymmetric import sign_message

    moment = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age)).isoformat().encode()
    return {
        KEYS.get("KEY_HEADER"): b64encode(public(key or private)),
        KEYS.get("TIME_HEADER"): moment,
        KEYS.get("SIGNATURE_HEADER"): b64encode(sign_message(private, moment)),
    }


async def echo(scope, receive, send):
    """Read the whole body, and answer with its length."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        length += len(message["body"])
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def answered(headers, blocks=(), path="/v1/fleet/push-object", most=MOST):
    """Return the status and text of an answer, and how many blocks of the body were taken."""
    left, sent = list(blocks), []

    async def receive():
        block = left.pop(0)
        return {"type": "http.request", "body": block, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "headers": raw}
    asyncio.run(SignedBodies(echo, [public(MINE)], most)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode(), len(blocks) - len(left)


def test_what_a_registered_node_signs_goes_through():
    assert answered(signed(), [b"ab", b"c"]) == (200, "3", 2)
    assert answered({**signed(), "content-length": b"3"}, [b"abc"]) == (200, "3", 1)


STRANGERS = {
    "nothing": {},
    "another-key": signed(OTHER),
    "another-key-under-mine": signed(OTHER, key=MINE),
    "old": signed(age=3600),
    "future": signed(age=-3600),
    "no-signature": {k: v for k, v in signed().items() if k != KEYS.get("SIGNATURE_HEADER")},
    "no-base64": {**signed(), KEYS.get("KEY_HEADER"): b"\xff"},
    "no-time": {**signed(), KEYS.get("TIME_HEADER"): b"now"},
    "no-zone": {**signed(), KEYS.get("TIME_HEADER"): b"2026-01-01T00:00:00"},
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS)
def test_no_byte_of_a_strangers_body_is_read(headers):
    assert not is_signed(headers, [public(MINE)])
    status, text, taken = answered(headers, [b"x" * 1000] * 3)
    assert (status, taken) == (412, 0)
    assert text == "request to the SuperLink: must be signed by a registered node"


def test_what_a_node_sends_has_a_limit():
    text = "body of a node's request: must have at most 64 MiB"
    assert answered(signed(), [b"x" * 60] * 9, most=100) == (413, text, 2)
    for length in (b"101", b"9" * 5000, b"-1", b"many"):
        headers = {**signed(), "content-length": length}
        assert answered(headers, [b"x"], most=100) == (413, text, 0)


def test_asking_for_health_takes_no_body():
    assert answered({}, [b"x" * 100], path="/health") == (200, "0", 0)


def test_many_slow_or_endless_bodies_without_a_key_take_no_memory():
    import uvicorn

    port = free_port()
    door = SignedBodies(echo, [public(MINE)])
    settings = uvicorn.Config(door, port=port, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    block = b"%x\r\n%s\r\n" % (2**20, b"x" * 2**20)
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n"
    kinds = (
        (b"Transfer-Encoding: chunked\r\n\r\n", block),
        (b"Content-Length: 314572800\r\n\r\n", b"x" * 2**20),
        (b"Content-Length: 314572800\r\n\r\n", b"x"),  # the rest never comes
    )
    for fields, body in kinds * 20:
        with socket.create_connection(("localhost", port), timeout=20) as client:
            client.sendall(head + fields)
            try:
                for _ in range(1 if len(body) == 1 else 20):
                    client.sendall(body)
            except OSError:  # the door has closed it
                continue
            assert client.recv(100).startswith(b"HTTP/1.1 412")
    server.should_exit = True
    thread.join(20)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 * 1024, grown
