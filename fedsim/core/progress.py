"""How far one answer of an attack is, for whoever waits for it.

A loop that may take minutes counts by `steps`, or says where it is by `report`; of loops inside one
that counts nothing is said. Without anybody who listens in this thread that costs nothing. What
listeners raise is not the attack's failure: they hear no more of the answer then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Where one answer is.

    Attributes:
        subject: The attack and the client, in words.
        part: What of the answer is worked on, where that is not the answer itself; else empty.
        done: Steps of the loop that it is in; an answer can have several loops in a row.
        total: At most so many.
        what: They are, in the plural.
    """

    subject: str
    done: int
    total: int
    what: str
    part: str = ""


Listener = Callable[[Step], None]


@dataclass
class _Answer:
    """An answer that somebody waits for.

    Attributes:
        part: As in `Step`.
        counting: Whether a loop counts already.
        deaf: Whether the listener failed.
    """

    subject: str
    listener: Listener
    part: str = ""
    counting: bool = False
    deaf: bool = False


_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)
_ANSWER: ContextVar[_Answer | None] = ContextVar("answer", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a listener hear of the answers that are worked on inside the block, in this thread."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def answering(subject: str) -> Iterator[None]:
    """Say whose answer the block works on."""
    listener = _LISTENER.get()
    token = _ANSWER.set(None if listener is None else _Answer(subject, listener))
    try:
        yield
    finally:
        _ANSWER.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Say what of an answer the block works on."""
    answer = _ANSWER.get()
    if answer is None:
        yield
        return
    before, answer.part = answer.part, name
    try:
        yield
    finally:
        answer.part = before


def steps(total: int, what: str) -> Iterator[int]:
    """Count from 1 to `total`, and report each step before it is made.

    Args:
        total: Steps of the loop, at most.
        what: They are, in the plural.
    """
    answer = _ANSWER.get()
    if answer is None or answer.counting:
        yield from range(1, total + 1)
        return
    try:
        for step in range(1, total + 1):
            report(step - 1, total, what)
            answer.counting = True
            yield step
            answer.counting = False
    finally:
        answer.counting = False


def report(done: int, total: int, what: str) -> None:
    """Report where the answer is that this thread works on.

    Args:
        done: Steps that are made.
        total: At most so many.
        what: They are, in the plural.
    """
    answer = _ANSWER.get()
    if answer is None or answer.counting or answer.deaf:
        return
    try:
        answer.listener(Step(answer.subject, done, total, what, answer.part))
    except Exception:  # a closed terminal
        answer.deaf = True
