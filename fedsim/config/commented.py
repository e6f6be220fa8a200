"""A config as TOML with a comment at every key: what it is, its type, rule and default."""

import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fedsim.config.reference import REQUIRED, UNSET, Key, Table, literal, literal_key, tables
from fedsim.config.root import Config

WIDTH = 96


def commented(config: Config) -> str:
    """Return the config as TOML with comments; keys and tables without a value are commented out.

    Reading the text gives the config again.
    """
    values = config.model_dump(mode="json")
    every = tables()
    named = {table.name for table in every}
    named |= {f"{key.section}.{key.name}" for table in every for key in table.keys}
    lines = (line for table in every for line in _table(table, values, named))
    return "\n".join(lines).lstrip("\n")


def _table(table: Table, values: Mapping[str, Any], named: Collection[str]) -> Iterator[str]:
    """Return a table's lines; settings that are not among the keys and tables named are options."""
    settings: Any = values
    for name in filter(None, table.name.split(".")):
        settings = settings and settings[name]
    absent = settings is None
    if table.name:
        yield from _comment(table.description)
        yield f"{'# ' * absent}[{table.name}]"
    for key in table.keys:
        yield ""
        yield from _comment(key.description)
        yield from _comment(_facts(key))
        yield _default_line(key) if absent else _line(key, settings[key.name])
    if table.name and not absent:
        options = {k: v for k, v in settings.items() if f"{table.name}.{k}" not in named}
        yield from [""] if options else []
        yield from (f"{literal_key(name)} = {literal(value)}" for name, value in options.items())
    yield "\n"


def _comment(text: str) -> Iterator[str]:
    for place, paragraph in enumerate(text.split("\n\n")):
        yield from ["#"] if place else []
        yield from (f"# {line}" for line in textwrap.wrap(paragraph, WIDTH))


def _facts(key: Key) -> str:
    """Return type, rule and default as one line."""
    rule = f", {key.rule}" if key.rule else ""
    default = REQUIRED if key.default == REQUIRED else f"default: {key.default}"
    return f"({key.type}{rule}; {default})"


def _default_line(key: Key) -> str:
    unset = key.default in (REQUIRED, UNSET)
    return f"# {key.name} =" if unset else f"# {key.name} = {key.default}"


def _line(key: Key, value: Any) -> str:
    if value is None or (key.type.endswith("or table") and isinstance(value, Mapping)):
        return f"# {key.name} ="  # unset, or a table of its own below
    if isinstance(value, list) and len(value) > 1 and isinstance(value[0], Mapping):
        parts = "".join(f"    {literal(part)},\n" for part in value)
        return f"{key.name} = [\n{parts}]"
    return f"{key.name} = {literal(value)}"
