"""Recording: an honest-but-curious server around any Flower strategy."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsim.core.accepts import Rule
from fedsim.core.blocks import Row
from fedsim.core.errors import ConfigError
from fedsim.core.group_writer import Written
from fedsim.core.params import mismatch
from fedsim.core.types import Params, Upload
from fedsim.core.wire import NUM_EXAMPLES
from strategies.around import AroundStrategy, check_strategy
from strategies.secure import SecureAggregation, Sum
from strategies.senders import Senders, reason_of
from strategies.sent import Sent, key_of
from strategies.spooled import Spooled, close_file, from_memory, put_off, read_whole
from strategies.tape import Tape, cohort_name, in_order
from strategies.uploads import (
    DECODED,
    ONCE,
    SENT,
    WEIGHT,
    Passed,
    Refused,
    decoded,
    model_of,
    num_examples_of,
    update_norm,
)


class Recording(AroundStrategy):
    """Aggregate exactly as `strategy` does, and put every upload on tape.

    Wrap it around everything else: server-side wrappers such as Flower's DP clip the replies in
    place. The inner strategy gets every reply that it would have got alone. What is no update of
    the model that its client was sent (trees that grow, other shapes, NaN) is not on tape: it is
    in `unrecorded`, and logged once. `strategies.Fence` keeps such replies from the strategy.

    Each upload is recorded beside the weights that its client was sent, whether or not others were
    sent the same. The norms of the recorded updates are in `norms`, the clients that answered an
    error or nothing in `failures`.

    Around `SecureAggregation` there is one upload a round to record, the sum over a cohort; those
    whose uploads are in it are in `members`.

    Uploads beyond `memory` bytes a round are handed on as arrays that read themselves from disk,
    so that no round is in memory at once unless the inner strategy puts it there.

    Args:
        strategy: Any strategy of Flower's message API.
        tape: Where to write; a path makes a tape of every client and round there.
        client_of: Node id → the client's identity on tape.
        upload: What clients upload: trained weights, or the gradient.
        weighted_by: The metric of a reply that holds its number of examples; by default the one
            that the strategy weights by.
        memory: Bytes of uploads held in memory per round.

    Raises:
        ConfigError: The strategy is none of the message API, or the tape is of some clients only,
            under secure aggregation.
    """

    def __init__(
        self,
        strategy: Strategy,
        tape: Tape | Path | str,
        *,
        client_of: Callable[[int], str] = str,
        upload: Upload = "weights",
        weighted_by: str | None = None,
        memory: int = 256 * 2**20,
    ) -> None:
        check_strategy(strategy)
        self.strategy = strategy
        self.tape = tape if isinstance(tape, Tape) else Tape(tape)
        self.client_of = client_of
        self.upload: Upload = upload
        self.weighted_by = weighted_by or getattr(strategy, "weighted_by_key", NUM_EXAMPLES)
        self.memory = memory
        self.failures: list[tuple[str, str]] = []
        self.unrecorded: list[tuple[str, str]] = []
        self.norms: dict[str, float] = {}
        self.members: tuple[str, ...] = ()
        if isinstance(strategy, SecureAggregation) and self.tape.record.clients is not None:
            raise ConfigError(
                "record.clients: must be left out with secure aggregation, which shows no client, "
                f"got {list(self.tape.record.clients)}"
            )
        self._messages: list[Message] = []
        self._sent = Sent(())
        self._logged: set[Rule] = set()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose clients and messages, and write down what it sends."""
        self._messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        # What is really sent may differ from `arrays`, and from client to client.
        self._sent = Sent(self._messages, key_of(self.strategy))
        self._write_sent(server_round)
        return self._messages

    def _write_sent(self, round_: int) -> None:
        """Write down every model that a recorded client is sent, each once."""
        if not self.tape.keeps(round_):
            return
        clients = [self.client_of(message.metadata.dst_node_id) for message in self._messages]
        self.tape.begin(round_, sum(self.tape.keeps(round_, client) for client in clients))
        if self._sent.shared is not None:
            self.tape.write_sent(round_, self._sent.shared)
        written: set[str] = set()
        for place, client in enumerate(clients):
            name = self._sent.name(place)
            if name is None or name in written or not self.tape.keeps(round_, client):
                continue
            if (sent := self._sent.params(place)) is not None:
                self.tape.write_sent(round_, sent, name)
                written.add(name)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Write down every upload that can be, and let the strategy aggregate all replies."""
        if isinstance(self.strategy, SecureAggregation):
            return self._aggregate_sum(self.strategy, server_round, replies)
        try:
            return read_whole(
                self.strategy.aggregate_train(server_round, self._receive(server_round, replies))
            )
        finally:
            close_file()
            self.tape.discard_spool()

    def _receive(self, round_: int, replies: Iterable[Message]) -> list[Message]:
        """Return all replies, and write down those that can be."""
        self.failures, self.unrecorded, self.norms, held = [], [], {}, 0
        awaited = dict.fromkeys(range(len(self._messages)))
        senders, passed = Senders(self._messages), []
        for reply in replies:
            passed.append(reply)
            place, client = senders.place(reply), self.client_of(senders.node(reply))
            first = place in awaited
            if place is not None:
                awaited.pop(place, None)
            if reply.has_error():
                self.failures.append((client, reason_of(reply)))
            elif place is not None and first:
                held += self._record(round_, place, client, reply, held)
        self.members = tuple(self.norms)
        self.tape.finish(round_)
        nodes = [self._messages[place].metadata.dst_node_id for place in awaited]
        self.failures += [(self.client_of(node), "no reply in time") for node in nodes]
        return passed

    def _aggregate_sum(
        self, strategy: SecureAggregation, round_: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Write down the sum of a round, and let the strategy aggregate it."""
        total = strategy.open(round_, replies)
        self.record_sum(round_, total)
        return strategy.aggregate_sum(round_, total)

    def record_sum(self, round_: int, total: Sum) -> None:
        """Write down all that a server learns of a round under secure aggregation."""
        self.unrecorded, self.norms, self.members = [], {}, ()
        self.failures = [(self.client_of(node), reason) for node, reason in total.failures]
        sent = self._sent.shared
        if total.members and sent is not None and mismatch(total.mean, sent) is None:
            self._write_sum(round_, total, sent)
        self.tape.finish(round_)

    def _write_sum(self, round_: int, total: Sum, sent: Params) -> None:
        self.members = in_order(self.client_of(node) for node in total.members)
        cohort = cohort_name(self.members)
        self.norms[cohort] = update_norm(total.mean, sent, self.upload)
        if self.tape.keeps(round_):
            self.tape.write_upload(
                round_, cohort, total.mean, total.num_examples, self.upload, self.members
            )

    def _record(self, round_: int, place: int, client: str, reply: Message, held: int) -> int:
        """Record one reply, if it can be; return the bytes that it keeps in memory."""
        try:
            sent = self._sent.params(place)
            if sent is None:
                raise Refused(SENT, f"message: {SENT.rule}")
            if client in self.norms:
                raise Refused(ONCE, f"message: {ONCE.rule}")
            _, record = model_of(reply, self._sent.keys[place])
            if type(record) is Passed and record.kind == self.upload:
                upload, length = record.upload, record.norm
            else:
                upload, length = decoded(record, sent, self.upload)
        except Refused as refused:
            self._leave_out(round_, client, refused)
            return 0
        except Exception as error:  # arrays with any object in their fields
            self._leave_out(round_, client, Refused(DECODED, f"arrays: {DECODED.rule} ({error})"))
            return 0
        self.norms[client] = length
        written = self._write(round_, place, client, reply, upload)
        size = _nbytes(upload)
        if held + size > self.memory:
            if written is None:
                written = Spooled(self.tape.spool(round_, client, upload))
            put_off(record, written)
            return 0
        if type(record) is not Passed:  # which holds them as they are
            put_off(record, partial(from_memory, upload))
        return size

    def _write(
        self, round_: int, place: int, client: str, reply: Message, upload: Params
    ) -> Written | None:
        """Put an upload on tape; return what reads it again, None where it is not to be there."""
        if not self.tape.keeps(round_, client):
            return None
        num_examples = None
        try:
            num_examples = num_examples_of(reply, self.weighted_by)
        except Refused as refused:  # attacks that need it will say so
            self._log(round_, client, refused)
        if num_examples is not None and num_examples < 1:  # it says nothing
            return None
        name = self._sent.name(place)
        return self.tape.write_upload(round_, client, upload, num_examples, self.upload, sent=name)

    def _leave_out(self, round_: int, client: str, refused: Refused) -> None:
        self.unrecorded.append((client, str(refused)))
        self._log(round_, client, refused)

    def _log(self, round_: int, client: str, refused: Refused) -> None:
        """Say once for each rule what is not on tape."""
        if refused.rule in self._logged:
            return
        self._logged.add(refused.rule)
        what = "number of examples" if refused.rule is WEIGHT else "upload"
        logging.getLogger(__name__).warning(
            "round %d: the %s of client %s is not on tape (%s); not logged again",
            round_,
            what,
            client,
            refused,
        )


def _nbytes(upload: Params) -> int:
    """Return how many bytes an upload takes."""
    if isinstance(upload, Row):
        return upload.block.layout.size
    return sum(value.nbytes for value in upload.values())
