"""What a round's messages hold: the model that each client was sent, equal ones once."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedsim.core.wire import ARRAYS, from_record, records_of


class Sent:
    """The models of a round's messages; most strategies send the same to all.

    Where a message holds several ArrayRecords, its model is the one under `key`.

    Args:
        messages: Those of one round.
        key: Of the model's ArrayRecord, where it is not the only one.

    Attributes:
        keys: Message → the key of its model's record; None where it holds none.
    """

    def __init__(self, messages: Sequence[Message], key: str = ARRAYS) -> None:
        models = _models(messages, key)
        self.keys = [name for name, _ in models]
        self._digests = _digests([record for _, record in models])
        counts = Counter(digest for digest in self._digests if digest is not None)
        self._shared = max(counts, key=lambda digest: counts[digest], default=None)
        # The records' own copies: a client in this process may put others into its message.
        self._records: dict[str, dict[str, Array]] = {}
        for (_, record), digest in zip(models, self._digests, strict=True):
            if record is not None and digest is not None and digest not in self._records:
                self._records[digest] = {**record}
        self._decoded: dict[str, dict[str, Tensor]] = {}
        self.shared = None if self._shared is None else self._params(self._shared)

    @property
    def names(self) -> list[str]:
        """The names of all models that are not the shared one."""
        return [digest for digest in self._records if digest != self._shared]

    def name(self, place: int) -> str | None:
        """Return the name of the model in a message; None for the shared one, and for none."""
        digest = self._digests[place]
        return None if digest == self._shared else digest

    def params(self, place: int) -> dict[str, Tensor] | None:
        """Return the model in a message; None where it holds none that can be read."""
        digest = self._digests[place]
        return None if digest is None else self._params(digest)

    def _params(self, digest: str) -> dict[str, Tensor] | None:
        """Decode a model: the shared one once, of the others the last stays in memory."""
        if digest not in self._decoded:
            for other in [name for name in self._decoded if name != self._shared]:
                del self._decoded[other]
            try:
                self._decoded[digest] = from_record(ArrayRecord(self._records[digest]))
            except Exception:  # NumPy's decoder raises whatever the bytes lead it to
                return None
        return self._decoded[digest]


def key_of(strategy: Strategy) -> str:
    """Return the key under which a strategy sends its model."""
    inner: Any = strategy
    while not hasattr(inner, "arrayrecord_key") and hasattr(inner, "strategy"):
        inner = inner.strategy
    return str(getattr(inner, "arrayrecord_key", ARRAYS))


def _models(messages: Sequence[Message], key: str) -> list[tuple[str | None, ArrayRecord | None]]:
    """Return the model's record of each message, and its key; most share one content."""
    contents = [message.content for message in messages]
    by_id = {id(content): content for content in contents}
    models = {place: _model(content, key) for place, content in by_id.items()}
    return [models[id(content)] for content in contents]


def _model(content: RecordDict, key: str) -> tuple[str | None, ArrayRecord | None]:
    records = records_of(content, ArrayRecord)
    name = next(iter(records)) if len(records) == 1 else key
    return (name, records[name]) if name in records else (None, None)


def _digests(records: Sequence[ArrayRecord | None]) -> list[str | None]:
    """Return a hash of each message's model; of a record that all hold, not of its content."""
    ids = {id(record): record for record in records if record is not None}
    if len(ids) == 1:
        return ["" if record is not None else None for record in records]
    by_id = {place: _digest(record) for place, record in ids.items()}
    return [None if record is None else by_id[id(record)] for record in records]


def _digest(record: ArrayRecord) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for name, array in record.items():
        hashed.update(repr((name, array.dtype, array.shape, len(array.data))).encode())
        hashed.update(array.data)
    return hashed.hexdigest()
