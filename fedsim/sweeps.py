"""Sweeps: one run per combination of settings, each in a folder of its own."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fedsim import api
from fedsim.config import Engine
from fedsim.config.grid import Cell
from fedsim.config.outside import names_outside
from fedsim.core.errors import BadRecording, ConfigError, FedsimError, one_line
from fedsim.federation.training_grid import OnClient
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from fedsim.track.installed import check_installed


def sweep(
    todo: Sequence[Cell],
    out: Path,
    *,
    engine: Engine | None = None,
    on_cell: Callable[[Cell, str | None], None] = lambda *_: None,
    on_client: OnClient = lambda *_: None,
) -> list[Path]:
    """Run every cell that is not finished yet, and go on with those that were stopped.

    Args:
        todo: What `cells` returned.
        out: Folder of the run folders.
        engine: Ray's address and workers, to do several runs at a time; one by one without.
        on_cell: Called with every cell that is done, and why it failed, if it did.
        on_client: Called with every client's reply, where runs go one by one; as `api.run`.

    Returns:
        The folders of the finished runs, in the cells' order.

    Raises:
        ConfigError: A config cannot be run, or a folder holds another run; nothing has started.
    """
    for cell in todo:
        if engine is not None and cell.config.engine.name == "ray":
            raise ConfigError(
                "engine.name: must be 'inline' where the runs themselves are spread over Ray"
            )
        _check(cell, out / cell.name)
    jobs = [(cell, out / cell.name) for cell in todo]
    results = _one_by_one(jobs, on_client) if engine is None else _on_ray(jobs, engine)
    reasons: dict[str, str | None] = {}
    for cell, reason in results:
        reasons[cell.name] = reason
        on_cell(cell, reason)
    return [path for cell, path in jobs if reasons[cell.name] is None]


def _check(cell: Cell, path: Path) -> None:
    """Refuse now what could not run later."""
    if path.is_symlink():
        raise ConfigError(f"{path}: must be a folder of this sweep's own, got a link")
    check_installed(cell.config.track)
    if not path.exists():
        prepare(cell.config)
        return
    try:
        finished = RunFolder(path).config
    except BadRecording:
        raise ConfigError(f"{path}: must be a run of this sweep or not exist") from None
    if finished.model_copy(update={"versions": {}}) != cell.config:
        raise ConfigError(f"{path}: must be the run with this sweep's config, got another config")


def _run(cell: Cell, path: Path, on_client: OnClient = lambda *_: None) -> str | None:
    """Run, go on with, or leave one cell; return why it failed."""
    try:
        if not path.exists():
            api.run(cell.config, path, on_client=on_client)
        elif max(RunFolder(path).finished_rounds, default=-1) < cell.config.federation.rounds:
            names = (name for _, name in names_outside(cell.config))
            api.resume(path, allow=names, on_client=on_client)  # it is this config
    except FedsimError as error:
        return str(error)
    except Exception as error:  # the other runs go on
        return one_line(error)
    return None


def _one_by_one(
    jobs: Sequence[tuple[Cell, Path]], on_client: OnClient
) -> Iterator[tuple[Cell, str | None]]:
    for cell, path in jobs:
        yield cell, _run(cell, path, on_client)


def _on_ray(jobs: Sequence[tuple[Cell, Path]], engine: Engine) -> Iterator[tuple[Cell, str | None]]:
    """Run cells in Ray tasks, each in a process of its own, as they finish."""
    from fedsim.core.ray_jobs import ray_tasks

    named = {cell.name: (cell, path.absolute()) for cell, path in jobs}
    for name, reason in ray_tasks(_run, named, address=engine.address, workers=engine.workers):
        yield named[name][0], reason
