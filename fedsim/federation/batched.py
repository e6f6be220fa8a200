"""The batched engine: clients of this process train together, as many at a time as the config says.

A client that cannot, and one that fails, runs as in the inline engine. Replies come in the order of
the jobs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from flwr.app import ArrayRecord, Context, Message
from torch import Tensor

from clients.batching import batching, trained_together
from clients.operator import operator
from clients.respond import begin, finish, truths_of
from clients.site import Site
from clients.task import Ready, Response
from fedsim.core.types import LocalTraining
from fedsim.core.wire import ARRAYS, from_record, records_of
from fedsim.federation.client_app import reply_of, task_of
from fedsim.federation.grid import Job
from fedsim.federation.inline import answer, process_goes_on
from fedsim.models.batching import Batching, refusal


@dataclass
class _Client:
    """A client of a batch.

    Attributes:
        ready: Its task; None where it is no training, or is refused.
        respond: Defends what was trained together; None where the client trains by itself.
    """

    message: Message
    context: Context
    ready: Ready | None = None
    respond: Callable[[], Response] | None = None

    def answer(self) -> Message:
        """Return its reply."""
        ready, respond = self.ready, self.respond
        if ready is None or respond is None:
            return answer(self.message, self.context)
        return answer(
            self.message,
            self.context,
            lambda message, context: reply_of(message, context, ready.task, respond()),
        )


class Batched:
    """Runs clients, a batch of them at a time.

    Args:
        size: The most clients that train together; memory grows with it.

    Attributes:
        alone: Why clients trained one by one, with how many; of the round that runs.
    """

    def __init__(self, size: int) -> None:
        self.size, self.alone = size, Counter[str]()
        self._batching: tuple[Site, Batching] | None = None

    def __call__(
        self,
        jobs: Iterable[Job],
        timeout: float | None,  # noqa: ARG002
    ) -> Iterator[tuple[Message, Context]]:
        """Run a batch of clients when the first of their replies is asked for."""
        self.alone.clear()
        waiting = iter(jobs)
        while clients := [_Client(*job) for job in islice(waiting, self.size)]:
            self._train(clients)
            for client in clients:
                yield client.answer(), client.context
                client.ready = client.respond = None  # its weights are no longer needed

    def _train(self, clients: Sequence[_Client]) -> None:
        """Train those together that can."""
        decoded: dict[int, dict[str, Tensor]] = {}
        groups: dict[tuple[int, LocalTraining], list[_Client]] = {}
        for client in clients:
            client.ready = _ready(client, decoded)
            if client.ready is None:
                continue
            if reason := self._hindrance(client.ready):
                self.alone[reason] += 1
            else:
                key = (id(client.ready.task.site), client.ready.local)
                groups.setdefault(key, []).append(client)
        for group in groups.values():
            self._train_group(group)

    def _train_group(self, clients: Sequence[_Client]) -> None:
        ready = [client.ready for client in clients if client.ready]
        mixes = self._of_site(ready[0].task.site).mixes
        try:
            with process_goes_on():
                results = trained_together(ready, mixes=mixes)
                truths = truths_of(ready, [used for _, used in results])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # what the model raises one by one is each client's
            self.alone[refusal(error)] += len(clients)
            return
        for client, each, result, truth in zip(clients, ready, results, truths, strict=True):
            client.respond = partial(finish, each, *result, truth)

    def _hindrance(self, ready: Ready) -> str:
        """Return why a client cannot train with others; empty if it can."""
        if ready.relation is not None:
            return "the client carries canaries"
        if not len(ready.examples.rows):
            return "the client has no examples"
        return self._of_site(ready.task.site).hindrance

    def _of_site(self, site: Site) -> Batching:
        if self._batching is None or self._batching[0] is not site:
            with process_goes_on():
                self._batching = (site, batching(site))
        return self._batching[1]


def _ready(client: _Client, decoded: dict[int, dict[str, Tensor]]) -> Ready | None:
    """Return an accepted task; None for what is no training, or fails, now as one by one.

    Args:
        client: Whose message.
        decoded: Contents of accepted messages of this batch; clients that were sent the same share
            it.
    """
    content = client.message.content
    if client.message.metadata.message_type.split(".")[0] != "train":
        return None
    try:
        with process_goes_on():
            record = records_of(content, ArrayRecord)[ARRAYS]
            sent, fits = decoded.get(id(record)), id(record) in decoded
            sent = from_record(record) if sent is None else sent
            node = operator(client.context.node_config)
            ready = begin(task_of(client.message, client.context, node, sent), fits=fits)
            decoded[id(record)] = sent
            return ready
    except KeyboardInterrupt:
        raise
    except BaseException:  # the inline engine's answer says what it is
        return None
