"""The Ray engine: clients run on actors of this machine, or of a cluster."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from fedsim.federation.grid import Execute, Job, failed

START = 120.0  # seconds that a new worker may take


class _Worker:
    """One process that runs clients, one at a time."""

    def ready(self) -> None:
        """Import what clients need, so that a round's time is the clients' alone."""
        import fedsim.federation.inline  # noqa: F401

    def run(self, content: RecordDict, shell: Message, context: Context) -> tuple[Message, Context]:
        from fedsim.federation.inline import answer

        shell.content = content
        return answer(shell, context), context


@contextmanager
def ray_actors(engine: Engine) -> Iterator[Execute]:
    """Start Ray's actors, one a core unless `workers` says otherwise, and stop them at the end.

    With `address` they are spread over that cluster, whose machines need fedsim, the data and
    (for the clients' ground truth) a shared file system.

    Raises:
        RunStopped: Ray cannot start or be reached.
    """
    with connected(engine.address, engine.workers) as count:
        yield from _actors(count)


def _actors(count: int) -> Iterator[Execute]:
    """Yield once: how to run clients on that many actors."""
    workers = _Workers(count)

    def execute(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:
        sending = _Sending(workers, timeout)
        yield from sending.answers(jobs)
        for place in sending.late:  # it would hold up the next round
            workers.replace(place)

    try:
        yield execute
    finally:
        for actor in workers.actors:
            ray.kill(actor)


class _Workers:
    """The actors; one that dies is replaced."""

    def __init__(self, count: int) -> None:
        self._start = ray.remote(num_cpus=1)(_Worker).remote
        self.actors: list[Any] = [self._start() for _ in range(count)]
        ray.get([actor.ready.remote() for actor in self.actors])

    def replace(self, place: int) -> None:
        """Put a new actor in the place of one that is dead, or still at a late client.

        Raises:
            RunStopped: None can be started, because a machine of the cluster is lost.
        """
        ray.kill(self.actors[place])
        self.actors[place] = self._start()
        try:
            ray.get(self.actors[place].ready.remote(), timeout=START)
        except RayError as error:
            message = f"engine: a Ray worker died, and no other started ({one_line(error)})"
            raise RunStopped(f"{message}; --resume goes on") from None


@dataclass(frozen=True)
class _Job:
    """What an actor was given to do."""

    place: int
    message: Message
    context: Context
    reference: Any


class _Sending:
    """One round: keeps every actor busy, holds a window of replies, in the jobs' order.

    The content of a round's messages goes into the object store once. Clients that do not answer
    in time are left out, and the places of their actors put into `late`. A client whose process
    dies answers with an error; what waited behind it goes to the actor's successor.
    """

    def __init__(self, workers: _Workers, timeout: float | None) -> None:
        self.workers, self.late = workers, set[int]()
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._stored: dict[int, tuple[RecordDict, Any]] = {}
        self._waiting: deque[_Job] = deque()

    def answers(self, jobs: Iterable[Job]) -> Iterator[tuple[Message, Context]]:
        """Yield the replies of those that answer.

        Raises:
            RunStopped: Ray itself fails.
        """
        # Actor i gets every len(actors)-th job: two in the queue of each keep it busy.
        actors = len(self.workers.actors)
        for number, (message, context) in enumerate(jobs):
            if len(self._waiting) >= 2 * actors:
                yield from self._collect()
            self._waiting.append(self._send(number % actors, message, context))
        while self._waiting:
            yield from self._collect()

    def _send(self, place: int, message: Message, context: Context) -> _Job:
        content = message.content
        if id(content) not in self._stored:
            self._stored[id(content)] = (content, ray.put(content))
        stored = self._stored[id(content)][1]
        reference = self.workers.actors[place].run.remote(stored, shell_of(message), context)
        return _Job(place, message, context, reference)

    def _collect(self) -> Iterator[tuple[Message, Context]]:
        job = self._waiting.popleft()
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        try:
            yield ray.get(job.reference, timeout=left)
        except GetTimeoutError:
            self.late.add(job.place)
        except RayActorError:
            self._replace(job.place)
            yield failed(job.message, "the client's process died (out of memory?)"), job.context
        except RayTaskError as error:
            if is_disk_full(error.cause):
                raise RunStopped("engine: a worker's disk is full; --resume goes on") from None
            yield failed(job.message, f"the reply cannot be sent ({one_line(error)})"), job.context
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunStopped(f"engine: Ray failed ({reason})") from None

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
                self._waiting[number] = self._send(place, job.message, job.context)
