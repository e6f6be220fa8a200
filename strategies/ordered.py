"""An order for Flower's nodes, so that a run depends on its seed and on nothing else."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsim.core.errors import RunStopped, plain
from fedsim.core.pieces import MissingPiece
from fedsim.core.wire import CONFIG
from strategies.around import AroundGrid
from strategies.flower_private import GRID
from strategies.senders import reason_of

BACKOFF = 2.0  # seconds at most between two looks for an array

PULL = "pull_messages"

OnFact = Callable[[Mapping[str, Any]], None]
"""Called with facts: `connected` nodes `of` how many, a client `ready`, clients `training` in a
`round`, a client that `replied` and whether that is `ok`."""


@contextmanager
def _arriving_within(http: Any, seconds: float | None) -> Iterator[None]:
    """Give up on a reply whose arrays do not come in time.

    A node that dies while it sends them has announced its reply already, and Flower's grid then
    waits for the rest whatever the timeout: for minutes, or hours if the node sends one now and
    then.

    Args:
        http: Flower's module of that grid; None if it has other parts than are needed.
        seconds: From now on; None to wait as Flower does.
    """
    if http is None or seconds is None:
        yield
        return
    pull, deadline = http.pull_objects, time.monotonic() + seconds

    def bounded(*args: Any, **options: Any) -> dict[str, bytes]:
        left = max(0.0, deadline - time.monotonic())
        return pull(*args, **{**options, "max_time": left, "backoff_cap": BACKOFF})

    http.pull_objects = bounded
    try:
        yield
    finally:
        http.pull_objects = pull


@contextmanager
def _heard(grid: Grid, hear: Callable[[Message], None]) -> Iterator[None]:
    """Hear of each reply inside the block when a grid pulls it: Flower's return all at the end."""
    pull, attributes = grid.pull_messages, vars(grid)
    before = {name: it for name, it in attributes.items() if name == PULL}

    def pull_and_hear(message_ids: Iterable[str]) -> list[Message]:
        replies = list(pull(message_ids))
        for reply in replies:
            hear(reply)
        return replies

    attributes[PULL] = pull_and_hear
    try:
        yield
    finally:
        del attributes[PULL]
        attributes.update(before)


class OrderedGrid(AroundGrid):
    """A Grid that shows nodes by client number and returns replies in that order.

    Flower's node ids are random, and replies arrive in any order: sampling and float sums then
    differ from run to run. This waits until all clients are there (Flower's strategies would
    sample from those that happen to be), asks each for its number once, and sorts.

    Args:
        grid: Flower's own grid.
        num_clients: How many to wait for.
        timeout: Seconds to wait for them, and for their answers.
        on_fact: Called with what is to be said of nodes, as they connect, train and reply.
    """

    def __init__(
        self,
        grid: Grid,
        num_clients: int,
        *,
        timeout: float = 600.0,
        on_fact: OnFact = lambda _: None,
    ) -> None:
        self.grid = grid
        self.on_fact = on_fact
        try:
            GRID.check()
            self._http = GRID.module("HttpGrid")
        except MissingPiece as error:  # without deadlines, everything else works
            self._http = None
            logging.getLogger("flwr").warning("%s", error)
        self._number = self._ask(num_clients, time.monotonic() + timeout)

    def client_of(self, node_id: int) -> str:
        """Return the client that a node is; a node that never said so keeps its own id."""
        return str(self._number.get(node_id, node_id))

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that there were at the start, by client number.

        Those that have gone since too: Flower's strategies would wait for them for ever, and the
        SuperLink answers in their place with an error, which is a row of the round's failures.
        """
        return list(self._number)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the replies by the client number of the message they answer."""
        sent = list(messages)
        training = [m for m in sent if m.metadata.message_type.split(".")[0] == MessageType.TRAIN]
        if training:
            clients = [self.client_of(m.metadata.dst_node_id) for m in training]
            self.on_fact({"training": clients, "round": _round_of(training[0])})
        hear = self._hearing(training) if training else lambda _: None
        with _arriving_within(self._http, timeout), _heard(self.grid, hear):
            replies = list(self.grid.send_and_receive(sent, timeout=timeout))
        replies += self._behind(sent, replies)
        place = {message.metadata.message_id: i for i, message in enumerate(sent)}
        number = lambda m: self._number.get(m.metadata.src_node_id, len(self._number))
        return sorted(
            replies, key=lambda m: (place.get(m.metadata.reply_to_message_id, len(sent)), number(m))
        )

    def _hearing(self, sent: list[Message]) -> Callable[[Message], None]:
        """Return what says whose a reply is, also of one that the SuperLink made."""
        clients: dict[str, str] = {}

        def hear(reply: Message) -> None:
            if not clients:  # messages have their numbers once they were sent
                node = lambda m: m.metadata.dst_node_id
                clients.update({m.metadata.message_id: self.client_of(node(m)) for m in sent})
            if client := clients.get(reply.metadata.reply_to_message_id):
                self.on_fact({"replied": client, "ok": not reply.has_error()})

        return hear

    def _behind(self, sent: list[Message], replies: list[Message]) -> list[Message]:
        """Return the replies that are there, but stood behind one whose arrays did not come.

        Flower's grid takes one after another, and does not look again once the time is over.
        """
        if self._http is None or not isinstance(self.grid, self._http.HttpGrid):
            return []
        answered = {reply.metadata.reply_to_message_id for reply in replies}
        left = {message.metadata.message_id for message in sent} - answered - {""}
        with _arriving_within(self._http, 0.0):
            return list(self.grid.pull_messages(left)) if left else []

    def _ask(self, num_clients: int, deadline: float) -> dict[int, int]:
        """Return node id → client number, by client number."""
        before = -1
        while len(nodes := list(self.grid.get_node_ids())) < num_clients:
            if len(nodes) != before:
                before = len(nodes)
                self.on_fact({"connected": before, "of": num_clients})
            if time.monotonic() > deadline:
                raise RunStopped(f"clients: {num_clients} must connect, got {len(nodes)} in time")
            time.sleep(0.5)
        self.on_fact({"connected": len(nodes), "of": num_clients})
        queries = [Message(RecordDict(), node, MessageType.QUERY) for node in nodes]
        left = max(1.0, deadline - time.monotonic())
        numbers: dict[int, int] = {}
        for reply in self.grid.send_and_receive(queries, timeout=left):
            if reply.has_error():
                raise RunStopped(f"clients: one could not start ({reason_of(reply)})")
            numbers[reply.metadata.src_node_id] = _number(reply)
            self.on_fact({"ready": str(numbers[reply.metadata.src_node_id])})
        if sorted(numbers.values()) != list(range(num_clients)):
            raise RunStopped(
                f"clients: numbers must be 0 to {num_clients - 1}, each once, "
                f"got {sorted(numbers.values())}"
            )
        return dict(sorted(numbers.items(), key=lambda item: item[1]))


def _number(reply: Message) -> int:
    """Return which client a node says it is.

    Raises:
        RunStopped: It says nothing of the kind.
    """
    answer = reply.content.config_records.get(CONFIG, ConfigRecord()).get("client")
    if not isinstance(answer, str) or not (answer.isascii() and answer.isdigit()):
        raise RunStopped(f"clients: each must say its number, got {plain(repr(answer))}")
    return int(answer[:20])


def _round_of(message: Message) -> int:
    """Return the round that a training message is of; 0 where it does not say."""
    round_ = message.content.config_records.get(CONFIG, ConfigRecord()).get("server-round", 0)
    return round_ if isinstance(round_, int) else 0
