"""Reading and writing a config: TOML, settings on top of it, and one sentence for every error."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from fedsim.config.fields import named_list, section_of
from fedsim.config.root import Config
from fedsim.config.search import nearest_key
from fedsim.config.values import parse_toml, parse_value, shown
from fedsim.core.boundary import in_one_line
from fedsim.core.catalog import lower_first
from fedsim.core.errors import ConfigError, closest
from fedsim.core.paths import user_path

LISTS = ("defense", "attack")  # keys that hold a list of parts
LARGEST = 2**20  # bytes of a file
FOREIGN = {"seed", "model", "local", "attack", "foreign", "versions"}


@in_one_line()
def parse(tables: Mapping[str, Any]) -> Config:
    """Return the config that `tables` (a parsed TOML file) describe.

    Raises:
        ConfigError: A key, type or range is wrong; one sentence with key, rule and value.
    """
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


@in_one_line()
def parse_json(text: str) -> Config:
    """Return the config that `to_json` wrote.

    Raises:
        ConfigError: It is not a valid config.
    """
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def to_json(config: Config) -> str:
    """Return the config as one line, to travel in a message."""
    return config.model_dump_json(exclude_none=True)


@in_one_line()
def read(
    path: Path | None, settings: Iterable[str] = (), values: Iterable[tuple[str, Any]] = ()
) -> Config:
    """Return the config in a TOML file (None: the defaults) with settings on top.

    Args:
        path: The file.
        settings: `key=value`; the value is TOML or a bare word.
        values: Keys and parsed values; they go on top of the settings.

    Raises:
        ConfigError: The file is missing or not TOML, or what it says is wrong.
    """
    tables = _file(user_path("config", path)) if path else {}
    for setting in settings:
        _put(tables, *_parsed(setting))
    for key, value in values:
        _put(tables, key, value)
    return parse(tables)


def dump(config: Config) -> str:
    """Return the config as TOML; keys without a value are left out.

    If fedsim did not run the recording, only the keys in `FOREIGN` are written.
    """
    keys = FOREIGN if config.foreign else None
    if config.foreign and config.foreign.head_only:
        keys = FOREIGN - {"model"}
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True, include=keys))


def _parsed(setting: str) -> tuple[str, Any]:
    """Return key and value of `section.key=value`; what is not TOML is taken as text."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: must be key=value, got {shown(setting)}")
    try:
        return key.strip(), parse_value(f"--set {key.strip()}", text)
    except tomllib.TOMLDecodeError:
        return key.strip(), text.strip()


def _file(path: Path) -> dict[str, Any]:
    """Return the tables in a TOML file, with or without a byte-order mark."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be a readable file ({error})") from None
    if len(content) > LARGEST:
        raise ConfigError(f"{path}: must be at most {LARGEST} bytes, got more")
    try:
        return parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: must be TOML ({lower_first(str(error))})") from None


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    """Put a value into `tables`, at `section.key` or, for a listed part, `section.part.key`."""
    *sections, name = key.split(".")
    if sections and sections[0] in LISTS and len(sections) == 2:
        listed = named_list(tables.get(sections[0], []))
        if not isinstance(listed, list) or not all(isinstance(it, dict) for it in listed):
            raise ConfigError(
                f"--set {key}: '{sections[0]}' must be a list of names or tables, "
                f"got {shown(listed)}"
            )
        tables[sections[0]] = _with_option(listed, sections[1], name, value)
        return
    for section in sections:
        table = tables.setdefault(section, {})
        if isinstance(table, str):  # `data = "mnist"` and then `data.root = ...`
            table = tables[section] = {"name": table}
        if not isinstance(table, dict):
            raise ConfigError(f"--set {key}: '{section}' must be a table, got {shown(table)}")
        tables = table
    tables[name] = value


def _with_option(parts: list[dict[str, Any]], part: str, option: str, value: Any) -> list[Any]:
    """Return `parts` with an option of the first part of that name, which is added if absent."""
    places = [place for place, it in enumerate(parts) if it.get("name") == part]
    if not places:
        return [*parts, {"name": part, option: value}]
    place = places[0]
    return [*parts[:place], {**parts[place], option: value}, *parts[place + 1 :]]


def _sentence(error: ValidationError) -> str:
    """Return the first error of a validation as `key: rule, got value`."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *sections, name = first["loc"]
        return f"{key}: must be a known key; {nearest_key(str(name), _keys(sections))}"
    if first["type"] == "value_error":  # one of our own sentences, already with key and value
        rule = first["msg"].removeprefix("Value error, ")
        return f"{key}.{rule}" if key else rule
    if first["type"] == "missing":
        return f"{key}: must be given"
    return f"{key}: {_rule(first)}, got {shown(first['input'])}{_hint(key, first)}"


def _rule(first: Mapping[str, Any]) -> str:
    """Return what a value must be; of a section, that it is a table."""
    return "must be a table" if first["type"] == "model_type" else lower_first(first["msg"])


def _hint(key: str, first: Mapping[str, Any]) -> str:
    """Return what may have been meant: a value of the choice, or the section's own key."""
    value = first["input"]
    if first["type"] == "literal_error" and isinstance(value, str):
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        close = closest(value, choices)
        return f"; did you mean '{close}'?" if close else ""
    if first["type"] == "model_type" and "name" in _keys(key.split(".")):
        return f"; did you mean '{key}.name'?"
    return ""


def _keys(sections: Iterable[Any]) -> list[str]:
    model: type[BaseModel] | None = Config
    for section in sections:
        field = model.model_fields.get(section)
        model = None if field is None else section_of(field)
        if model is None:
            return []
    return list(model.model_fields)
