"""Recording in Flower's legacy API: `server_fn`, `flwr.server.strategy`, `NumPyClient`.

What passes is turned into messages of today's API, so that one recorder does for both. Under
Flower's secure aggregation it records the mean of a round, as no client's own upload.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedsim.core.errors import ConfigError
from fedsim.core.types import Upload
from fedsim.core.wire import ARRAYS, METRICS, NUM_EXAMPLES, from_record
from strategies.recording import Recording
from strategies.secure import Sum
from strategies.tape import Tape

NO_GRID: Any = None  # the legacy API samples clients without one


class LegacyRecording:
    """`Recording` for a strategy of `flwr.server.strategy`: records, and changes nothing.

    `ServerAppComponents(strategy=LegacyRecording(FedAvg(...), "/abs/runs/mine", names=...))`.
    Everything that is not about `fit` is the strategy's own.

    Args:
        strategy: Any strategy of the legacy API.
        tape: Where to write; a path makes a tape of every client and round there.
        names: What the arrays are called in the model's state, in its order, as
            `list(Net().state_dict())`; None for "0", "1", ….
        client_of: The legacy client's `cid` → its identity on tape.
        upload: What clients upload: trained weights, or the gradient.

    Raises:
        ConfigError: The strategy is none of the legacy API; or, before anybody trains, there are
            not as many names as arrays.
    """

    def __init__(
        self,
        strategy: Any,
        tape: Tape | Path | str,
        *,
        names: Sequence[str] | None = None,
        client_of: Callable[[str], str] = str,
        upload: Upload = "weights",
    ) -> None:
        if not hasattr(strategy, "configure_fit") or isinstance(strategy, type):
            raise ConfigError(
                "strategy: must be one of flwr.server.strategy for LegacyRecording, got "
                f"{_described(strategy)}; Recording is for those of flwr.serverapp.strategy"
            )
        self.strategy = strategy
        self.names = None if names is None else tuple(names)
        self._given = _Given()
        self._clients: list[str] = []
        self.recording = Recording(
            self._given,
            tape,
            client_of=lambda place: client_of(self._clients[place]),
            upload=upload,
        )

    def __getattr__(self, name: str) -> Any:
        """Return what the strategy has."""
        if name == "strategy":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.strategy, name)

    def configure_fit(self, server_round: int, *args: Any, **options: Any) -> Any:
        """Let the strategy choose clients, and write down what they are sent."""
        instructions = self.strategy.configure_fit(server_round, *args, **options)
        pairs = list(instructions)
        self._clients = [str(proxy.cid) for proxy, _ in pairs]
        contents: dict[int, RecordDict] = {}  # one for all that are sent the same object
        for _, sent in pairs:
            if id(sent.parameters) not in contents:
                contents[id(sent.parameters)] = self._content(sent.parameters)
        self._given.messages = [
            Message(contents[id(sent.parameters)], place, "train")
            for place, (_, sent) in enumerate(pairs)
        ]
        self.recording.configure_train(server_round, ArrayRecord(), ConfigRecord(), NO_GRID)
        return pairs if isinstance(instructions, Iterator) else instructions

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Write down every upload that can be, and let the strategy aggregate."""
        results = list(results) if isinstance(results, Iterator) else results
        if (total := self._mean(results)) is not None:
            self.recording.record_sum(server_round, total)
        else:
            self.recording.aggregate_train(server_round, self._replies(results))
        return self.strategy.aggregate_fit(server_round, results, failures)

    def _mean(self, results: Sequence[tuple[Any, Any]]) -> Sum | None:
        """Return what Flower's secure aggregation puts in the place of every upload, or None.

        Its workflow gives the same object, their weighted mean, to all clients of a round.
        """
        if len(results) < 2 or len({id(result.parameters) for _, result in results}) > 1:
            return None
        record = self._content(results[0][1].parameters, 1).array_records.get(ARRAYS)
        if record is None:
            return None
        answered = {str(proxy.cid): int(result.num_examples) for proxy, result in results}
        places = {client: place for place, client in enumerate(self._clients)}
        gone = [(place, "no reply in time") for cid, place in places.items() if cid not in answered]
        members = [places[client] for client in answered if client in places]
        return Sum(from_record(record), sum(answered.values()), members, gone)

    def _replies(self, results: Iterable[tuple[Any, Any]]) -> Iterator[Message]:
        places = {client: place for place, client in enumerate(self._clients)}
        for proxy, result in results:
            if (place := places.get(str(proxy.cid))) is not None:
                content = self._content(result.parameters, result.num_examples)
                yield Message(content, reply_to=self._given.messages[place])

    def _content(self, parameters: Any, num_examples: Any = None) -> RecordDict:
        """Return arrays under their names; nothing where they are no NumPy arrays.

        Raises:
            ConfigError: There are not as many names.
        """
        try:
            arrays = [np.load(BytesIO(t), allow_pickle=False) for t in parameters.tensors]
        except Exception:  # NumPy's decoder raises whatever the bytes lead it to
            return RecordDict()
        names = self.names or tuple(map(str, range(len(arrays))))
        if len(names) != len(arrays):
            if num_examples is None:
                raise ConfigError(
                    f"names: must be those of the {len(arrays)} arrays sent, got {len(names)}"
                )
            return RecordDict()
        pairs = zip(names, arrays, strict=True)
        content = RecordDict({ARRAYS: ArrayRecord({name: Array(value) for name, value in pairs})})
        if isinstance(num_examples, int | float):
            content[METRICS] = MetricRecord({NUM_EXAMPLES: num_examples})
        return content


class _Given(FedAvg):
    """Sends the messages that it is given, and aggregates nothing."""

    messages: Sequence[Message] = ()

    def configure_train(
        self,
        server_round: int,  # noqa: ARG002
        arrays: ArrayRecord,  # noqa: ARG002
        config: ConfigRecord,  # noqa: ARG002
        grid: Grid,  # noqa: ARG002
    ) -> Iterable[Message]:
        return self.messages

    def aggregate_train(
        self,
        server_round: int,  # noqa: ARG002
        replies: Iterable[Message],  # noqa: ARG002
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return None, None


def _described(strategy: Any) -> str:
    return f"the class {strategy.__name__}" if isinstance(strategy, type) else repr(strategy)
