"""Recording: an honest-but-curious server around any Flower strategy."""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.errors import ConfigError, FedsimError
from fedsim.core.files import TensorFile
from fedsim.core.params import mismatch, not_finite
from fedsim.core.types import Params, Upload
from fedsim.core.wire import NUM_EXAMPLES, LazyArray, from_record, oversized
from strategies.around import AroundStrategy
from strategies.secure import SecureAggregation, Sum
from strategies.senders import Senders, reason_of
from strategies.tape import Tape, cohort_name, in_order


class _Refused(FedsimError):
    """An upload that cannot be aggregated, and why."""


class Recording(AroundStrategy):
    """Aggregate exactly as `strategy` does, and put every upload on tape.

    Wrap it around everything else: server-side wrappers such as Flower's DP clip the replies in
    place. What reaches the inner strategy is what it would have got alone, less the uploads it
    could not have used: missing arrays, wrong shapes, NaN (Flower averages NaN silently).
    These are left out and listed in `failures`; the norms of the usable updates are in `norms`.

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
        ConfigError: The tape is of some clients only, under secure aggregation.
    """

    def __init__(
        self,
        strategy: Strategy,
        tape: Tape | Path | str,
        *,
        client_of: Callable[[int], str] = str,
        upload: Upload = "weights",
        weighted_by: str | None = None,
        memory: int = 64 * 2**20,
    ) -> None:
        self.strategy = strategy
        self.tape = tape if isinstance(tape, Tape) else Tape(tape)
        self.client_of = client_of
        self.upload: Upload = upload
        self.weighted_by = weighted_by or getattr(strategy, "weighted_by_key", NUM_EXAMPLES)
        self.memory = memory
        self.failures: list[tuple[str, str]] = []
        self.norms: dict[str, float] = {}
        self.members: tuple[str, ...] = ()
        if isinstance(strategy, SecureAggregation) and self.tape.record.clients is not None:
            raise ConfigError(
                "record.clients: must be left out with secure aggregation, which shows no client, "
                f"got {list(self.tape.record.clients)}"
            )
        self._messages: list[Message] = []
        self._sent: dict[str, Tensor] | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose clients and messages, and write down what it sends."""
        self._messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        # What is really sent may differ from `arrays`.
        sent = list(self._messages[0].content.array_records.values()) if self._messages else []
        self._sent = from_record(sent[0]) if len(sent) == 1 else None
        if self._sent is not None and self.tape.keeps(server_round):
            self.tape.write_sent(server_round, self._sent)
        return self._messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Write down every usable upload, and let the strategy aggregate them."""
        if isinstance(self.strategy, SecureAggregation):
            return self._aggregate_sum(self.strategy, server_round, replies)
        awaited = {self.client_of(message.metadata.dst_node_id): None for message in self._messages}
        self.failures, self.norms, valid, held = [], {}, [], 0
        senders = Senders(self._messages)
        for reply in replies:
            client = self.client_of(senders.node(reply))
            awaited.pop(client, None)
            if reply.has_error():
                self.failures.append((client, reason_of(reply)))
                valid.append(reply)  # as it would get it alone
                continue
            try:
                if self._sent is not None:  # else there is nothing to record
                    held += self._receive(server_round, client, reply, held)
                valid.append(reply)
            except _Refused as error:
                self.failures.append((client, str(error)))
        self.members = tuple(self.norms)
        self.failures += [(client, "no reply in time") for client in awaited]
        try:
            return self.strategy.aggregate_train(server_round, valid)
        finally:
            _open.cache_clear()
            self.tape.discard_spool()

    def _aggregate_sum(
        self, strategy: SecureAggregation, round_: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Write down the sum of a round, and let the strategy aggregate it."""
        self.failures, self.norms, self.members = [], {}, ()
        total = strategy.open(round_, replies)
        self.failures = [(self.client_of(node), reason) for node, reason in total.failures]
        if total.members and self._sent is not None:
            self._write_sum(round_, total, self._sent)
        return strategy.aggregate_sum(round_, total)

    def _write_sum(self, round_: int, total: Sum, sent: Params) -> None:
        self.members = in_order(self.client_of(node) for node in total.members)
        cohort = cohort_name(self.members)
        self.norms[cohort] = _update_norm(total.mean, sent if self.upload == "weights" else None)
        if self.tape.keeps(round_):
            self.tape.write_upload(
                round_, cohort, total.mean, total.num_examples, self.upload, self.members
            )

    def _receive(self, round_: int, client: str, reply: Message, held: int) -> int:
        """Check and record one reply; return the bytes that it keeps in memory.

        Raises:
            _Refused: It cannot be aggregated.
        """
        sent = self._sent or {}
        record = _only_arrays(reply)
        if reason := oversized(record, sent):
            raise _Refused(reason)
        try:
            upload = from_record(record)
        except Exception as error:  # NumPy's decoder raises whatever the bytes lead it to
            raise _Refused(f"arrays: must be numeric NumPy arrays ({error})") from None
        if reason := mismatch(upload, sent):
            raise _Refused(reason)
        num_examples = _num_examples(reply, self.weighted_by)
        norm = _update_norm(upload, sent if self.upload == "weights" else None)
        if not math.isfinite(norm) and (reason := not_finite(upload)):
            raise _Refused(reason)
        self.norms[client] = norm
        size = sum(value.nbytes for value in upload.values())
        path = None
        if self.tape.keeps(round_, client) and num_examples >= 1:  # else it says nothing
            path = self.tape.write_upload(round_, client, upload, num_examples, self.upload)
        if held + size > self.memory:
            path = path or self.tape.spool(round_, client, upload)
            _put_off(record, partial(_from_file, path))
            return 0
        _put_off(record, partial(_from_memory, upload))
        return size


def _only_arrays(message: Message) -> ArrayRecord:
    records = list(message.content.array_records.values())
    if len(records) != 1:
        raise _Refused(f"content: must hold one ArrayRecord, got {len(records)}")
    return records[0]


def _num_examples(reply: Message, key: str) -> int | float:
    """Return a reply's weight.

    Raises:
        _Refused: It is missing, or no average could be taken with it.
    """
    records = list(reply.content.metric_records.values())
    if len(records) != 1:
        raise _Refused(f"content: must hold one MetricRecord, got {len(records)}")
    value = records[0].get(key)
    if not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise _Refused(f"{key}: must be a number ≥ 0, got {value}")
    return value


def _put_off(record: ArrayRecord, fetch: Callable[[str], NDArray]) -> None:
    """Put arrays that are fetched by name in place of a record's own."""
    for name, array in record.items():
        record[name] = LazyArray(partial(fetch, name), array.dtype, array.shape)


def _from_memory(upload: Params, name: str) -> NDArray:
    return upload[name].numpy().copy()


def _from_file(path: Path, name: str) -> NDArray:
    return _open(path)[name].numpy()


@lru_cache(maxsize=1)  # one, because a mapped file counts as memory
def _open(path: Path) -> TensorFile:
    return TensorFile(path)


def _update_norm(upload: Params, sent: Params | None) -> float:
    """Return the norm of upload − sent, in the upload's precision; integers do not count."""
    names = [name for name, value in upload.items() if value.is_floating_point()]
    moved = [upload[name] for name in names]
    if sent is not None:
        origin = [sent[n].to(value.dtype) for n, value in zip(names, moved, strict=True)]
        moved = torch._foreach_sub(moved, origin)
    return math.hypot(*torch.stack(torch._foreach_norm(moved)).tolist()) if moved else 0.0
