"""Which rounds and clients an attack is for: two options that every attack takes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adversary.attack import Attack
from fedsim.core.catalog import options_of
from fedsim.core.errors import ConfigError

RESERVED = ("every", "clients")


def scheduled(
    key: str, attack: Attack, options: Mapping[str, Any]
) -> tuple[Attack, dict[str, Any]]:
    """Return an attack with its schedule, and the options that are its own.

    Args:
        key: What the config calls it.
        attack: As it is without options.
        options: `every`, from 1; `clients`, a list of names or one text with commas; and its own.

    Raises:
        ConfigError: One of the two is out of range, or the attack has an option of that name.
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
    return replace(attack, every=every, clients=_clients(key, options.get("clients"))), unreserved


def _clients(key: str, clients: Any) -> tuple[str, ...] | None:
    if clients is None:
        return None
    parts = clients.split(",") if isinstance(clients, str) else clients
    names = parts if isinstance(parts, (list, tuple)) else [parts]
    if not names or not all(type(name) in (str, int) for name in names):
        raise ConfigError(f"{key}.clients: must be a list of clients' names, got {clients!r}")
    return tuple(str(name).strip() for name in names)
