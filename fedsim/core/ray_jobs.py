"""Ray: connected to or started, and jobs that run there in processes of their own."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fedsim.core.errors import RunStopped, one_line
from fedsim.core.machine import check_cores

# `uv run` would otherwise make Ray build a fresh environment for every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# What Ray will do in its next version; saying so keeps it from warning every user.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import (  # for the engine
    GetTimeoutError,  # noqa: F401
    RayActorError,  # noqa: F401
    RayError,
    RayTaskError,  # noqa: F401
)

STARTS = 3  # tries: Ray itself gives a node half a minute to start


def ray_tasks(
    function: Callable[..., str | None],
    jobs: Mapping[str, tuple[Any, ...]],
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Iterator[tuple[str, str | None]]:
    """Run `function(*arguments)` for every named job, each in a process of its own on Ray.

    Args:
        function: Returns a reason where the job failed, None where it is done.
        jobs: Name → arguments.
        address: Of a running Ray cluster; Ray is started on this machine without.
        workers: Jobs at a time; as many as there are cores without.

    Yields:
        A job's name and what its function returned (a reason, where the process died), as they
        finish.

    Raises:
        ConfigError: There are more workers than cores.
        RunStopped: Ray cannot start or be reached.
    """
    with connected(address, workers):
        task = ray.remote(num_cpus=1, max_calls=1, max_retries=0)(function)
        running = {task.remote(*arguments): name for name, arguments in jobs.items()}
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                try:
                    reason = ray.get(reference)
                except RayError as error:
                    reason = f"the process died ({one_line(error)})"
                yield running.pop(reference), reason


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[int]:
    """Use the running Ray or start one, and stop it at the end; yield how many workers to use."""
    ours = not ray.is_initialized()
    if address is None:
        check_cores("engine.workers", workers or 1)
    if ours:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            options |= {"include_dashboard": False, "num_cpus": workers or os.cpu_count()}
        _begin(address, options)
    try:
        cores = int(ray.cluster_resources().get("CPU", 1))
        count = workers or cores
        if count > cores:
            raise RunStopped(
                f"engine.workers: must be at most the cluster's {cores} cores, got {count}"
            )
        yield count
    finally:
        if ours:
            ray.shutdown()


def _begin(address: str | None, options: Mapping[str, Any]) -> None:
    """Connect to Ray, or start it; a busy machine may need a second try."""
    tries = 1 if address else STARTS
    for attempt in range(tries):
        try:
            ray.init(address=address or "local", **options)
            return
        except Exception as error:  # a node that starts too slowly raises a plain Exception
            ray.shutdown()
            if attempt + 1 == tries:
                reason = one_line(error)
                raise RunStopped(f"engine.address: Ray must be reachable ({reason})") from None
