"""The inline engine: clients run one after the other in this process."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from flwr.app import Context, Message

from fedsim.core.boundary import raised
from fedsim.core.errors import is_disk_full
from fedsim.federation.client_app import app
from fedsim.federation.grid import Job, failed


def inline(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:  # noqa: ARG001
    """Run each client when its reply is asked for; in one thread nothing can be cut short."""
    for message, context in jobs:
        yield answer(message, context), context


def answer(
    message: Message, context: Context, run: Callable[[Message, Context], object] | None = None
) -> Message:
    """Run the ClientApp on one message; whatever it does becomes a reply of this client.

    What it raises becomes an error, also where it wants to end the process. Ctrl-C passes.

    Args:
        message: To the client.
        context: The client's.
        run: Replies to the message in place of the ClientApp.
    """
    try:
        with process_goes_on():
            reply = (run or app)(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"a ClientApp must return a Message, got {type(reply).__name__}")
        if run is not None:  # not the client's own code: it has the address
            return reply
        if reply.has_error():
            return Message(reply.error, reply_to=message)
        return Message(reply.content, reply_to=message)  # whatever address the client wrote on it
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if is_disk_full(error):  # of the machine that simulates, not of the client
            raise
        return failed(message, raised(error))


@contextmanager
def process_goes_on() -> Iterator[None]:
    """Turn `os._exit` of this process inside the block into SystemExit; forks exit as they do."""
    leave, process = os._exit, os.getpid()

    def exit_client(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"the client wants to end its process with status {status}")

    os._exit = exit_client
    try:
        yield
    finally:
        os._exit = leave
