"""The Ray engine: clients run on actors of this machine, or of a cluster.

With `engine.batch` an actor is given so many clients at once, which train together there.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from flwr.app import Context, Message, RecordDict

from fedsim.config import Engine
from fedsim.core.errors import RunStopped, is_disk_full, one_line

# Not from ray itself: ray_jobs first sets what Ray reads at import.
from fedsim.core.ray_jobs import (
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
    connected,
    ray,
)
from fedsim.federation.flower_private import shell_of
from fedsim.federation.gpus import gpu_places
from fedsim.federation.grid import Execute, Job, failed

START = 120.0  # seconds that a new worker may take


Replies = list[tuple[Message, Context]]


class _Worker:
    """One process that runs clients: one at a time, or some that train together.

    Args:
        size: The most clients that train together.
    """

    def __init__(self, size: int) -> None:
        self.size, self._batched = size, None

    def ready(self) -> None:
        """Import what clients need, so that a round's time is the clients' alone."""
        import fedsim.federation.inline  # noqa: F401

        if self.size > 1:
            from fedsim.core.machine import keep_freed_memory
            from fedsim.federation.batched import Batched

            keep_freed_memory()
            self._batched = Batched(self.size)

    def run(
        self,
        clients: Sequence[tuple[int, Message, Context]],
        together: bool,
        *contents: RecordDict,
    ) -> tuple[Replies, Mapping[str, int]]:
        """Return the replies of clients, and why some that should have did not train together.

        Args:
            clients: Of each which content it was sent, the message without it, and its context.
            together: Whether they are to train together.
            contents: Of the messages.
        """
        from fedsim.federation.inline import inline

        jobs: Replies = []
        for place, shell, context in clients:
            shell.content = contents[place]
            jobs.append((shell, context))
        if self._batched is None or not together:
            return list(inline(jobs, None)), {}
        replies = list(self._batched(jobs, None))
        return replies, dict(self._batched.alone)


@contextmanager
def ray_actors(engine: Engine, alone: Counter[str]) -> Iterator[Execute]:
    """Start Ray's actors, one a core unless `workers` says otherwise, and stop them at the end.

    With `address` they are spread over that cluster, whose machines need fedsim, the data and
    (for the clients' ground truth) a shared file system.

    Args:
        engine: Where Ray is, how many actors, how many clients train together.
        alone: Is given why clients of the latest round did not, with how many.

    Raises:
        RunStopped: Ray cannot start or be reached, or lacks machines with a GPU.
    """
    with connected(engine.address, engine.workers) as count:
        share = 0.0
        if engine.device == "cuda":
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            count, share = gpu_places(nodes, count, engine.workers)  # noqa: PLW2901
        yield from _actors(count, engine.batch or 1, share, alone)


def _actors(count: int, size: int, share: float, alone: Counter[str]) -> Iterator[Execute]:
    """Yield once: how to run clients on that many actors, each with a share of a GPU."""
    workers = _Workers(count, size, share)

    def execute(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:
        alone.clear()
        sending = _Sending(workers, timeout, alone)
        yield from sending.answers(jobs)
        for place in sending.late:  # it would hold up the next round
            workers.replace(place)

    try:
        yield execute
    finally:
        for actor in workers.actors:
            ray.kill(actor)


class _Workers:
    """The actors; one that dies is replaced.

    Args:
        count: How many.
        size: The most clients that train together on each.
        share: Of a GPU, that each takes.
    """

    def __init__(self, count: int, size: int, share: float = 0.0) -> None:
        self.size = size
        self._start = ray.remote(num_cpus=1, num_gpus=share)(_Worker).remote
        self.actors: list[Any] = [self._start(size) for _ in range(count)]
        ray.get([actor.ready.remote() for actor in self.actors])

    def replace(self, place: int) -> None:
        """Put a new actor in the place of one that is dead, or still at a late client.

        Raises:
            RunStopped: None can be started, because a machine of the cluster is lost.
        """
        ray.kill(self.actors[place])
        self.actors[place] = self._start(self.size)
        try:
            ray.get(self.actors[place].ready.remote(), timeout=START)
        except RayError as error:
            message = f"engine: a Ray worker died, and no other started ({one_line(error)})"
            raise RunStopped(f"{message}; --resume goes on") from None


@dataclass(frozen=True)
class _Job:
    """What an actor was given to do, with clients that train together where there are several."""

    place: int
    clients: Sequence[Job]
    together: bool
    reference: Any


class _Sending:
    """One round: keeps every actor busy, holds a window of replies, in the jobs' order.

    The content of a round's messages goes into the object store once. Clients that do not answer
    in time are left out, and the places of their actors put into `late`. A client whose process
    dies answers with an error; what waited behind it goes to the actor's successor. Where several
    were to train together there, each runs again by itself: only one of them may be the reason.
    """

    def __init__(self, workers: _Workers, timeout: float | None, alone: Counter[str]) -> None:
        self.workers, self.late, self.alone = workers, set[int](), alone
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._stored: dict[int, tuple[RecordDict, Any]] = {}
        self._waiting: deque[_Job] = deque()

    def answers(self, jobs: Iterable[Job]) -> Iterator[tuple[Message, Context]]:
        """Yield the replies of those that answer.

        Raises:
            RunStopped: Ray itself fails.
        """
        # Actor i gets every len(actors)-th job: two in the queue of each keep it busy.
        actors, size, number = len(self.workers.actors), self.workers.size, 0
        left = iter(jobs)
        while clients := list(islice(left, size)):
            while len(self._waiting) >= 2 * actors:
                yield from self._collect()
            self._waiting.append(self._send(number % actors, clients, together=size > 1))
            number += 1
        while self._waiting:
            yield from self._collect()

    def _send(self, place: int, clients: Sequence[Job], *, together: bool) -> _Job:
        contents: dict[int, Any] = {}
        for message, _ in clients:
            key = id(message.content)
            if key not in self._stored:
                self._stored[key] = (message.content, ray.put(message.content))
            contents[key] = self._stored[key][1]
        places = {key: number for number, key in enumerate(contents)}
        shells = [(places[id(it.content)], shell_of(it), context) for it, context in clients]
        actor = self.workers.actors[place]
        return _Job(
            place, clients, together, actor.run.remote(shells, together, *contents.values())
        )

    def _collect(self) -> Iterator[tuple[Message, Context]]:
        job = self._waiting.popleft()
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        try:
            replies, alone = ray.get(job.reference, timeout=left)
        except GetTimeoutError:
            self.late.add(job.place)
        except RayActorError:
            self._replace(job.place)
            yield from self._failed(job, "the client's process died (out of memory?)")
        except RayTaskError as error:
            if is_disk_full(error.cause):
                raise RunStopped("engine: a worker's disk is full; --resume goes on") from None
            yield from self._failed(job, f"the reply cannot be sent ({one_line(error)})")
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunStopped(f"engine: Ray failed ({reason})") from None
        else:
            self.alone.update(alone)
            yield from replies

    def _failed(self, job: _Job, reason: str) -> Iterator[tuple[Message, Context]]:
        """Yield the error of a client; each of several is to run again by itself, in its order."""
        if len(job.clients) == 1:
            [(message, context)] = job.clients
            yield failed(message, reason), context
            return
        self.alone[f"in a batch of clients {reason}"] += len(job.clients)
        again = [self._send(job.place, [client], together=False) for client in job.clients]
        self._waiting.extendleft(reversed(again))

    def _replace(self, place: int) -> None:
        """Replace a dead actor, and give its successor what it still had to do.

        The time that the new one takes to start is not the clients'.
        """
        begun = time.monotonic()
        self.workers.replace(place)
        self.late.discard(place)
        if self.deadline is not None:
            self.deadline += time.monotonic() - begun
        for number, job in enumerate(self._waiting):
            if job.place == place:
                self._waiting[number] = self._send(place, job.clients, together=job.together)
