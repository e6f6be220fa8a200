"""Grids of settings: one config for every combination of values."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.config.reading import read
from fedsim.config.root import Config
from fedsim.config.values import check_values, parse_value, shown
from fedsim.core.boundary import in_one_line
from fedsim.core.errors import ConfigError

LONGEST = 60  # characters of one setting in a folder's name

Over = tuple[str, list[Any]]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: the folder it goes into, and its config."""

    name: str
    config: Config


@in_one_line()
def parse_over(text: str) -> Over:
    """Read `section.key=value,value,…`; values are TOML, so that lists and tables work too.

    Raises:
        ConfigError: There is no key or no value, or a value stands twice.
    """
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise ConfigError(f"--over: must be key=value,value,…, got {shown(text)}")
    try:
        parsed = parse_value(f"--over {key.strip()}", f"[{values}]")
    except tomllib.TOMLDecodeError:  # bare words
        parsed = [value.strip() for value in values.split(",")]
    try:
        check_values({key.strip(): parsed})
    except ValueError as error:
        raise ConfigError(f"--over {error}") from None
    if len({json.dumps(value) for value in parsed}) < len(parsed):
        raise ConfigError(f"--over {key.strip()}: each value must stand once, got {shown(values)}")
    return key.strip(), parsed


def cells(
    path: Path | None, settings: Sequence[str] = (), overs: Iterable[Over] = ()
) -> list[Cell]:
    """Return a run for every combination of values, all checked, in the order given.

    Args:
        path: TOML file that all share; None for the default settings.
        settings: `key=value` that all share.
        overs: Keys and their values; the last one changes fastest.

    Raises:
        ConfigError: One of the configs is wrong; its name is in the sentence.
    """
    overs = list(overs)
    grid: dict[str, Cell] = {}
    for values in itertools.product(*(values for _, values in overs)):
        chosen = [(key, value) for (key, _), value in zip(overs, values, strict=True)]
        name = "_".join(_label(key, value) for key, value in chosen) or "run"
        try:
            config = read(path, settings, chosen).model_copy(update={"versions": {}})
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}" if overs else str(error)) from None
        while name in grid:  # labels leave out what no file name can hold
            name += "-"
        grid[name] = Cell(name, config)
    return list(grid.values())


def seeds(path: Path | None, settings: Sequence[str], count: int) -> list[Cell]:
    """Return one setting with `count` seeds from its own on, as runs `seed-0`, `seed-1` and so on.

    Raises:
        ConfigError: The config is wrong.
    """
    first = read(path, settings).seed
    configs = [read(path, settings, [("seed", seed)]) for seed in range(first, first + count)]
    return [Cell(f"seed-{it.seed}", it.model_copy(update={"versions": {}})) for it in configs]


def _label(key: str, value: object) -> str:
    """Return what one setting is called in a folder's name."""
    text = _text(value)
    if not isinstance(value, (list, dict)):
        text = f"{'.'.join(key.split('.')[-2:])}={text}"
    return re.sub(r"[^A-Za-z0-9.=+_-]+", "-", text).strip("-.")[:LONGEST] or "none"


def _text(value: object) -> str:
    if isinstance(value, list):
        return "+".join(_text(item) for item in value) or "none"
    if isinstance(value, dict):
        options = [f"{k}={_text(v)}" for k, v in value.items() if k != "name"]
        return "-".join([str(value.get("name", "")), *options]).strip("-")
    return str(value)
