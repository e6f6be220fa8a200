"""The inline engine: clients run one after the other in this process."""

from collections.abc import Iterable, Iterator

from flwr.app import Context, Error, Message

from fedsim.core.errors import is_disk_full, one_line
from fedsim.federation.client_app import app
from fedsim.federation.grid import Job


def inline(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:  # noqa: ARG001
    """Run each client when its reply is asked for; in one thread nothing can be cut short."""
    for message, context in jobs:
        yield answer(message, context), context


def answer(message: Message, context: Context) -> Message:
    """Run the ClientApp on one message; whatever it raises becomes an error reply."""
    try:
        return app(message, context)
    except Exception as error:
        if is_disk_full(error):  # of the machine that simulates, not of the client
            raise
        reason = f"{type(error).__name__}: {one_line(error)}"
        return Message(Error(code=0, reason=reason), reply_to=message)
