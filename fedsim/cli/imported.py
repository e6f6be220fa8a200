"""A user's own `package.module:function`, as `fedsim list` describes it: a part like any other."""

from collections.abc import Mapping
from typing import Any

from fedsim.core.catalog import Entry, find, options_of
from fedsim.core.errors import ConfigError

IMPORTED = ("attacks", "datasets", "defenses", "models", "strategies")  # kinds with such parts


def imported(kind: str, name: str, parts: Mapping[str, Any]) -> Any:
    """Return the part that a path names, as the rooms of its kind take it.

    Raises:
        ConfigError: It cannot be imported, or is none of this kind.
    """
    from adversary.adapters import check_adapter
    from adversary.attack import Attack

    key = f"list {kind}"
    if kind == "attacks":
        check_adapter(key, name)
    part = find(key, name, parts)
    if kind == "attacks":
        if not isinstance(part, Attack):
            raise ConfigError(f"{key}: must be an Attack, got {name} = {part!r}")
        return part
    if not callable(part):
        raise ConfigError(f"{key}: must be a function, got {name} = {part!r}")
    options_of(part)
    return part if kind == "strategies" else Entry(name, part)
