"""Doing the runs of a canary that have not been done: here or on Ray."""

from collections.abc import Callable
from pathlib import Path

import torch

from fedsim import config as configs
from fedsim.audit.runs import CanaryRuns, Chunk, canary_runs
from fedsim.audit.setup import prepare
from fedsim.config import Engine
from fedsim.core.errors import RunStopped, one_line


def run_all(
    runs: CanaryRuns,
    recording: Path | None,
    engine: Engine | None,
    on_runs: Callable[[str, int, int], None],
) -> None:
    """Do the runs that have not been done.

    Args:
        runs: Of a canary.
        recording: The run folder whose weights are audited; None for a model trained for it.
        engine: Ray; None to do them here.
        on_runs: Called with the canary, runs done and runs in all.

    Raises:
        RunStopped: A process died, or a user's mechanism failed.
    """
    if engine is not None:
        _on_ray(runs, recording, engine)
    total, done = sum(chunk.size for chunk in runs.chunks), 0
    for chunk in runs.chunks:
        if not runs.is_done(chunk):
            runs.run(chunk)
        done += chunk.size
        on_runs(runs.canary, done, total)


def _on_ray(runs: CanaryRuns, recording: Path | None, engine: Engine) -> None:
    """Let Ray tasks do the chunks that are left, a share each."""
    from fedsim.core.ray_jobs import ray_tasks

    left = [chunk for chunk in runs.chunks if not runs.is_done(chunk)]
    workers = min(engine.workers or 2, len(left))
    shares = {f"share {place + 1}": left[place::workers] for place in range(workers)}
    text, out = configs.to_json(runs.setup.config), runs.out.absolute()
    folder = None if recording is None else recording.absolute()
    args = (text, folder, runs.setting, runs.canary, out)
    jobs = {name: (*args, share) for name, share in shares.items()}
    for name, reason in ray_tasks(_share, jobs, address=engine.address, workers=engine.workers):
        if reason is not None:
            raise RunStopped(f"canary {runs.canary}, {name}: {reason}")


def _share(
    text: str, recording: Path | None, setting: str, canary: str, out: Path, chunks: list[Chunk]
) -> str | None:
    """Do some chunks in a process of their own; return why it failed."""
    try:
        config = configs.parse_json(text)
        torch.set_num_threads(config.engine.threads)
        runs = canary_runs(prepare(config, recording), setting, canary, out)
        for chunk in chunks:
            runs.run(chunk)
    except Exception as error:  # raised where the audit runs
        return one_line(error)
    return None
