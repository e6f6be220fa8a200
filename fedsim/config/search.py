"""Keys of the config by what they are called, or by words of what they are."""

from collections.abc import Collection
from functools import lru_cache

from fedsim.config.reference import Key, keys
from fedsim.core.errors import closest, nearest

MOST = 3  # keys that a sentence names
ALIKE = 0.7  # of names in another section


@lru_cache
def every() -> tuple[Key, ...]:
    """Return every key; the schema behind them is made once."""
    return tuple(keys())


def named(name: str) -> list[Key]:
    """Return the keys of a name, wherever they stand; of a section's name, its `name`."""
    name = name.replace("-", "_")
    return [
        key for key in every() if key.name == name or (key.name == "name" and key.section == name)
    ]


def search(words: str) -> list[Key]:
    """Return the keys that have all words in name or description, those with one in the name first.

    Words are parts of words: `round` finds `rounds`.
    """
    parts = words.lower().replace("_", " ").split()
    matching = [key for key in every() if parts and all(part in _text(key) for part in parts)]
    in_name = lambda key: any(part in key.path.lower().replace("_", " ") for part in parts)
    return sorted(matching, key=lambda key: not in_name(key))


def nearest_key(name: str, inside: Collection[str]) -> str:
    """Return the end of a sentence that names the key which is meant by an unknown one.

    Args:
        name: The unknown key.
        inside: The keys of the section where it stands.
    """
    paths = [key.path for key in named(name)]
    if not paths and closest(name, inside) is None:
        alike = closest(name, {key.name for key in every()}, cutoff=ALIKE)
        paths = [key.path for key in named(alike)] if alike else []
    if not paths:
        return nearest(name, inside or {key.path for key in every()})
    return f"did you mean {' or '.join(repr(path) for path in paths[:MOST])}?"


def _text(key: Key) -> str:
    return f"{key.path} {key.description}".replace("_", " ").lower()
