"""The defenses by name, and the chain that a config lists."""

from collections.abc import Iterable
from typing import Any

from defenses.chain import chain
from defenses.defense import Defense
from fedsim.config import Part
from fedsim.core.catalog import Entry, call, find_entry, options_of
from fedsim.core.errors import ConfigError
from fedsim.core.records import Records

MODULES = (
    "clip",
    "dp_sgd",
    "freeze",
    "gaussian",
    "laplace",
    "mixup",
    "perturb",
    "prune",
    "quantise",
    "sign",
    "soteria",
    "sparsify",
    "vib",
)
DEFENSES = Records[Entry]("defenses", MODULES, "DEFENSE")


def build(parts: Iterable[Part]) -> Defense:
    """Return the chain of the defenses that a config lists, in its order.

    Raises:
        ConfigError: A name or an option is unknown, or an option is out of range.
    """
    try:
        return chain(*links(parts))
    except ValueError as error:
        raise ConfigError(f"defense: {error}") from None


def links(parts: Iterable[Part]) -> list[Defense]:
    """Return the defenses that a config lists, each by itself.

    Raises:
        ConfigError: As `build`.
    """
    return [_link(part) for part in parts]


def all_options(part: Part) -> dict[str, Any]:
    """Return a defense's options, defaults included."""
    make = find_entry("defense.name", part.name, DEFENSES, "defenses").make
    return {name: option.default for name, option in options_of(make).items()} | part.options


def with_defaults(entry: Entry) -> Defense | None:
    """Return the defense with its default options; None where an option has no default."""
    try:
        return entry.make()
    except (TypeError, ValueError):
        return None


def _link(part: Part) -> Defense:
    make = find_entry("defense.name", part.name, DEFENSES, "defenses").make
    defense = call(f"defense.{part.name}", make, part.options)
    if not isinstance(defense, Defense):
        raise ConfigError(f"defense.name: must make a Defense, got {part.name} = {make!r}")
    return defense
