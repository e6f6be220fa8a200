"""Which rounds and clients an attack is for, and its memory: three options of every attack."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adversary.attack import Attack
from fedsim.core.catalog import options_of
from fedsim.core.errors import ConfigError

RESERVED = ("every", "clients", "memory")
GIGA = 1e9


def scheduled(
    key: str, attack: Attack, options: Mapping[str, Any]
) -> tuple[Attack, dict[str, Any]]:
    """Return an attack with its schedule, and the options that are its own.

    Args:
        key: What the config calls it.
        attack: As it is without options.
        options: `every`, from 1; `clients`, a list of names or one text with commas;
            `memory`, in GB, above 0; and its own.

    Raises:
        ConfigError: One of the three is out of range, or the attack has an option of that name.
    """
    for name in RESERVED:
        if name in options_of(attack.infer):
            raise ConfigError(
                f"{key}.{name}: must not be an option of the attack's own: it says what any attack "
                f"is run on; got {sorted(options_of(attack.infer))}"
            )
    unreserved = {name: value for name, value in options.items() if name not in RESERVED}
    every = options.get("every", 1)
    if type(every) is not int or every < 1:
        raise ConfigError(f"{key}.every: must be a whole number of at least 1, got {every!r}")
    clients, memory = _clients(key, options.get("clients")), _memory(key, options.get("memory"))
    return replace(attack, every=every, clients=clients, memory=memory), unreserved


def _memory(key: str, memory: Any) -> float | None:
    if memory is None:
        return None
    if type(memory) not in (int, float) or not 0 < memory < math.inf:
        raise ConfigError(f"{key}.memory: must be a number of GB above 0, got {memory!r}")
    return GIGA * memory


def _clients(key: str, clients: Any) -> tuple[str, ...] | None:
    if clients is None:
        return None
    parts = clients.split(",") if isinstance(clients, str) else clients
    names = parts if isinstance(parts, (list, tuple)) else [parts]
    if not names or not all(type(name) in (str, int) for name in names):
        raise ConfigError(f"{key}.clients: must be a list of clients' names, got {clients!r}")
    return tuple(str(name).strip() for name in names)
