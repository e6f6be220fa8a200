"""The Ray engine: clients run on actors of this machine, or of a cluster."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message, RecordDict

from fedsim.config import Engine
from fedsim.core.errors import RunStopped

# Not from ray itself: ray_jobs first sets what Ray reads at import.
from fedsim.core.ray_jobs import GetTimeoutError, RayActorError, RayError, connected, ray
from fedsim.federation.flower_private import shell_of
from fedsim.federation.grid import Execute, Job


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
    worker = ray.remote(num_cpus=1)(_Worker)
    actors: list[Any] = [worker.remote() for _ in range(count)]
    ray.get([actor.ready.remote() for actor in actors])

    def execute(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:
        late: set[int] = set()
        yield from _spread(jobs, actors, timeout, late)
        for place in late:  # still at a client whose time is over: it would hold up the next round
            ray.kill(actors[place])
            actors[place] = worker.remote()
            ray.get(actors[place].ready.remote())

    try:
        yield execute
    finally:
        for actor in actors:
            ray.kill(actor)


def _spread(
    jobs: Iterable[Job], actors: list[Any], timeout: float | None, late: set[int]
) -> Iterator[tuple[Message, Context]]:
    """Keep every actor busy, hold a window of replies, and yield them in the jobs' order.

    The content of a round's messages goes into the object store once. Clients that do not answer
    in time are left out, and the places of their actors put into `late`.

    Raises:
        RunStopped: A worker process died: the rest of the round would silently be lost.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    stored: dict[int, tuple[RecordDict, Any]] = {}
    waiting: deque[tuple[int, Any]] = deque()

    def collect() -> Iterator[tuple[Message, Context]]:
        place, reference = waiting.popleft()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            yield ray.get(reference, timeout=left)
        except GetTimeoutError:
            late.add(place)
        except RayActorError:
            message = "engine: a Ray worker died (out of memory?); --resume goes on"
            raise RunStopped(message) from None
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunStopped(f"engine: Ray failed ({reason})") from None

    # Actor i gets every len(actors)-th job: two in the queue of each keep it busy.
    for number, (message, context) in enumerate(jobs):
        if len(waiting) >= 2 * len(actors):
            yield from collect()
        content = message.content
        if id(content) not in stored:
            stored[id(content)] = (content, ray.put(content))
        shell = shell_of(message)
        place = number % len(actors)
        sent = actors[place].run.remote(stored[id(content)][1], shell, context)
        waiting.append((place, sent))
    while waiting:
        yield from collect()
