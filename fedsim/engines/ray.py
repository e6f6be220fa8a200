"""The Ray engine: clients run on actors of this machine, or of a cluster."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message, RecordDict

from fedsim.config import Engine
from fedsim.engines.grid import Execute, Job
from fedsim.errors import RunStopped

# `uv run` would otherwise make Ray build a fresh environment for every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# What Ray will do in its next version; saying so keeps it from warning every user.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError


class _Worker:
    """One process that runs clients, one at a time."""

    def run(self, content: RecordDict, shell: Message, context: Context) -> tuple[Message, Context]:
        from fedsim.engines.inline import answer

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
    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if engine.address is None:
            options |= {"include_dashboard": False, "num_cpus": engine.workers or os.cpu_count()}
        try:
            ray.init(address=engine.address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise RunStopped(f"engine.address: Ray must be reachable ({reason})") from None
    count = engine.workers or int(ray.cluster_resources().get("CPU", 1))
    worker = ray.remote(num_cpus=1)(_Worker)
    actors: list[Any] = [worker.remote() for _ in range(count)]

    def execute(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:
        return _spread(jobs, actors, timeout)

    try:
        yield execute
    finally:
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()


def _spread(
    jobs: Iterable[Job], actors: list[Any], timeout: float | None
) -> Iterator[tuple[Message, Context]]:
    """Keep every actor busy, hold a window of replies, and yield them in the jobs' order.

    The content of a round's messages goes into the object store once.

    Raises:
        RunStopped: A worker process died: the rest of the round would silently be lost.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    stored: dict[int, tuple[RecordDict, Any]] = {}
    waiting: deque[Any] = deque()
    # Actor i gets every len(actors)-th job: two in the queue of each keep it busy.
    for place, (message, context) in enumerate(jobs):
        if len(waiting) >= 2 * len(actors):
            yield from _collect(waiting.popleft(), deadline)
        content = message.content
        if id(content) not in stored:
            stored[id(content)] = (content, ray.put(content))
        shell = Message(RecordDict(), metadata=message.metadata)  # type: ignore[call-overload]
        actor = actors[place % len(actors)]
        waiting.append(actor.run.remote(stored[id(content)][1], shell, context))
    while waiting:
        yield from _collect(waiting.popleft(), deadline)


def _collect(reference: Any, deadline: float | None) -> Iterator[tuple[Message, Context]]:
    """Yield a reply, or nothing where its client is too late."""
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        yield ray.get(reference, timeout=left)
    except GetTimeoutError:
        ray.cancel(reference)
    except RayActorError:
        raise RunStopped("engine: a Ray worker died (out of memory?); --resume goes on") from None
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RunStopped(f"engine: Ray failed ({reason})") from None
