"""Sweeps: one run per combination of settings, each in a folder of its own."""

import itertools
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim import api
from fedsim import config as configs
from fedsim.config import Config, Engine
from fedsim.errors import BadRecording, ConfigError, FedsimError, one_line
from fedsim.plan import prepare
from fedsim.run_folder import RunFolder

Over = tuple[str, list[Any]]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: the folder it goes into, and its config."""

    name: str
    config: Config


def parse_over(text: str) -> Over:
    """Read `section.key=value,value,…`; values are TOML, so that lists and tables work too.

    Raises:
        ConfigError: There is no key or no value, or a value stands twice.
    """
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise ConfigError(f"--over: must be key=value,value,…, got '{text}'")
    try:
        parsed = tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:  # bare words
        parsed = [value.strip() for value in values.split(",")]
    if len({json.dumps(value) for value in parsed}) < len(parsed):
        raise ConfigError(f"--over {key.strip()}: each value must stand once, got {values}")
    return key.strip(), parsed


def cells(
    path: Path | None, settings: Sequence[str] = (), overs: Iterable[Over] = ()
) -> list[Cell]:
    """Return a run for every combination of values, all checked, in the order given.

    Args:
        path: TOML file that all share; the defaults without.
        settings: `key=value` that all share.
        overs: Keys and their values; the last one changes fastest.

    Raises:
        ConfigError: One of the configs is wrong; its name is in the sentence.
    """
    overs = list(overs)
    found: dict[str, Cell] = {}
    for values in itertools.product(*(values for _, values in overs)):
        chosen = [(key, value) for (key, _), value in zip(overs, values, strict=True)]
        name = "_".join(_label(key, value) for key, value in chosen) or "run"
        try:
            config = configs.read(path, settings, chosen).model_copy(update={"versions": {}})
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}" if overs else str(error)) from None
        while name in found:  # labels leave out what no file name can hold
            name += "-"
        found[name] = Cell(name, config)
    return list(found.values())


def sweep(
    todo: Sequence[Cell],
    out: Path,
    *,
    engine: Engine | None = None,
    on_cell: Callable[[Cell, str | None], None] = lambda *_: None,
) -> list[Path]:
    """Run every cell that is not finished yet, and go on with those that were stopped.

    Args:
        todo: What `cells` returned.
        out: Folder of the run folders.
        engine: Ray's address and workers, to do several runs at a time; one by one without.
        on_cell: Called with every cell that is done, and why it failed, if it did.

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
    results = _here(jobs) if engine is None else _on_ray(jobs, engine)
    reasons: dict[str, str | None] = {}
    for cell, reason in results:
        reasons[cell.name] = reason
        on_cell(cell, reason)
    return [path for cell, path in jobs if reasons[cell.name] is None]


def _check(cell: Cell, path: Path) -> None:
    """Refuse now what could not run later."""
    if not path.exists():
        prepare(cell.config)
        return
    try:
        there = RunFolder(path).config
    except BadRecording:
        raise ConfigError(f"{path}: must be a run of this sweep or not exist") from None
    if there.model_copy(update={"versions": {}}) != cell.config:
        raise ConfigError(f"{path}: must be the run with this sweep's config, got another config")


def _run(cell: Cell, path: Path) -> str | None:
    """Run, go on with, or leave one cell; return why it failed."""
    try:
        if not path.exists():
            api.run(cell.config, path)
        elif max(RunFolder(path).finished_rounds, default=-1) < cell.config.federation.rounds:
            api.resume(path)
    except FedsimError as error:
        return str(error)
    except Exception as error:  # the other runs go on
        return one_line(error)
    return None


def _here(jobs: Sequence[tuple[Cell, Path]]) -> Iterator[tuple[Cell, str | None]]:
    for cell, path in jobs:
        yield cell, _run(cell, path)


def _on_ray(jobs: Sequence[tuple[Cell, Path]], engine: Engine) -> Iterator[tuple[Cell, str | None]]:
    """Run cells in Ray tasks, each in a process of its own, as they finish."""
    from fedsim.engines.ray import ray_tasks

    named = {cell.name: (cell, path.absolute()) for cell, path in jobs}
    for name, reason in ray_tasks(_run, named, engine):
        yield named[name][0], reason


def _label(key: str, value: object) -> str:
    """Return what one setting is called in a folder's name."""
    text = _text(value)
    if not isinstance(value, (list, dict)):
        text = f"{'.'.join(key.split('.')[-2:])}={text}"
    return re.sub(r"[^A-Za-z0-9.=+_-]+", "-", text).strip("-.") or "none"


def _text(value: object) -> str:
    if isinstance(value, list):
        return "+".join(_text(item) for item in value) or "none"
    if isinstance(value, dict):
        options = [f"{k}={_text(v)}" for k, v in value.items() if k != "name"]
        return "-".join([str(value.get("name", "")), *options]).strip("-")
    return str(value)
