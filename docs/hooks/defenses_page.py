"""All defenses, from their modules, their promises and their options."""

import sys
from typing import Any

from texts import code, docstring, table

from defenses.registry import DEFENSES, with_defaults
from fedsim.core.catalog import Entry, options_of


def page() -> str:
    """Return a table of all defenses, and a section for each."""
    rows = [(code(name), *promise(entry), entry.paper) for name, entry in DEFENSES.items()]
    head = table(("defense", "promise", "statement", "neighbours", "paper"), rows)
    return "\n\n".join([head, *map(section, DEFENSES.values())])


def promise(entry: Entry) -> tuple[str, str, str]:
    """Return what a defense guarantees with its default options."""
    defense = with_defaults(entry)
    if defense is None:
        return "", "", ""
    made = defense.promise
    relation = getattr(made.relation, "value", made.relation) or ""
    return "formal" if made.formal else "heuristic", made.statement, relation


def section(entry: Entry) -> str:
    """Return what a defense says of itself, its options, and how a config names it."""
    module = entry.make.__module__
    title = (sys.modules[module].__doc__ or entry.name).strip().splitlines()[0].rstrip(".")
    options = "".join(
        f", {key} = {toml(option.default)}"
        for key, option in options_of(entry.make).items()
        if option.default is not None
    )
    return "\n\n".join(
        [
            f"## `{entry.name}`",
            docstring(title) + ".",
            f'```toml\ndefense = [{{name = "{entry.name}"{options}}}]\n```',
            f"::: {module}.{entry.make.__name__}\n    options:\n      show_root_heading: false\n"
            "      show_root_toc_entry: false\n      show_signature: false",
        ]
    )


def toml(value: Any) -> str:
    """Return a default as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
