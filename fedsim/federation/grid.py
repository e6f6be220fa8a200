"""A Flower Grid for simulation: nodes are client numbers, and an engine runs their ClientApp."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from clients.operator import SIMULATED
from fedsim.core.errors import plain
from fedsim.core.group_writer import Facts
from fedsim.core.truths import save_shared
from fedsim.core.types import Params
from fedsim.core.wire import from_record, records_of, tensors_in, to_record
from fedsim.federation.client_app import COLLECTED, FACTS, TRUTH
from fedsim.federation.flower_private import enter_run, set_message_id

Job = tuple[Message, Context]
Execute = Callable[[Iterable[Job], float | None], Iterator[tuple[Message, Context]]]
"""(jobs, timeout) → replies with the client's context after it, in the order of the jobs."""

SERVER = 1  # Flower's own id for the server
_FIRST = 2


def failed(message: Message, reason: str) -> Message:
    """Return the reply of a client that could not answer."""
    return Message(Error(code=0, reason=plain(reason)), reply_to=message)


class SimulationGrid(Grid):
    """Reaches simulated clients through an engine.

    Replies come one by one as the strategy asks for them, in the order of the messages, so that
    a round need not be in memory at once. Clients keep their state between rounds.

    Args:
        num_clients: How many there are.
        execute: The engine.
        truth: Where the clients' ground truth goes.
        states: What clients remember from an earlier part of the run.
    """

    def __init__(
        self,
        num_clients: int,
        execute: Execute,
        truth: Path,
        states: Mapping[str, Params] | None = None,
    ) -> None:
        enter_run(SERVER)
        self.num_clients = num_clients
        self.execute = execute
        self.truth = truth
        self._ids = itertools.count(1)
        self._contexts: dict[int, Context] = {}
        self._trained: set[int] = set()
        for client, state in (states or {}).items():
            records = self._context(int(client) + _FIRST).state
            for name, value in state.items():
                record, _, key = name.partition("/")
                records.setdefault(record, ArrayRecord())[key] = to_record({key: value})[key]  # type: ignore[index]

    def client_of(self, node_id: int) -> str:
        """Return the client that a node is."""
        return str(node_id - _FIRST)

    def client_states(self) -> dict[str, Params]:
        """Return what the clients of the last round remember, as `record/name` → tensor."""
        return {
            self.client_of(node): {
                f"{record}/{name}": value
                for record, arrays in records_of(self._contexts[node].state, ArrayRecord).items()
                for name, value in from_record(arrays).items()
            }
            for node in sorted(self._trained)
            if records_of(self._contexts[node].state, ArrayRecord)
        }

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes, by client number."""
        return range(_FIRST, _FIRST + self.num_clients)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run every message's client and yield the replies in the messages' order."""
        messages = list(messages)
        self._trained = {message.metadata.dst_node_id for message in messages}
        for message in messages:
            set_message_id(message, str(next(self._ids)))
        jobs = ((message, self._context(message.metadata.dst_node_id)) for message in messages)
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        truths: dict[int, dict[str, tuple[Params, Facts]]] = {}
        for reply, context in self.execute(jobs, timeout):
            # A client may write another's id into its context.
            node = nodes[reply.metadata.reply_to_message_id]
            self._contexts[node] = context
            if (truth := _taken(context)) is not None:
                truths.setdefault(truth[0], {})[self.client_of(node)] = truth[1:]
            yield reply
        for round_, of_clients in truths.items():
            save_shared(self.truth, round_, of_clients)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not offered: nothing runs in the background of a simulation."""
        raise NotImplementedError("simulation: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not offered: nothing runs in the background of a simulation."""
        raise NotImplementedError("simulation: use send_and_receive")

    def create_message(self, *args: Any, **options: Any) -> Message:
        """Return `Message(*args, **options)`."""
        return Message(*args, **options)

    def set_run(self, run: Any) -> None:
        """Accept any run: a simulation has one."""

    @property
    def run(self) -> Any:
        """A simulation has no Flower run."""
        return None

    def _context(self, node_id: int) -> Context:
        if node_id not in self._contexts:
            node_config = {
                "partition-id": node_id - _FIRST,
                "num-partitions": self.num_clients,
                COLLECTED: True,
                SIMULATED: True,
            }
            self._contexts[node_id] = Context(1, node_id, node_config, RecordDict(), {})
        return self._contexts[node_id]


def _taken(context: Context) -> tuple[int, Params, Facts] | None:
    """Take a client's ground truth out of its state: the round, the truth, and facts about it."""
    if TRUTH not in context.state:
        return None
    truth = records_of(context.state, ArrayRecord)[TRUTH]
    facts = records_of(context.state, ConfigRecord)[FACTS]
    del context.state[TRUTH], context.state[FACTS]
    costs = {name: float(str(value)) for name, value in facts.items() if name != "round"}
    return int(str(facts["round"])), tensors_in(truth), costs
