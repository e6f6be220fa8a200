"""What a recording's config names outside fedsim, and whether it may be used.

A name such as `module:function` is imported when a part is built, and a path is read or downloaded
into. Both come from whoever wrote `config.toml`. So fedsim uses them if the config was written by
this user, or if the user allows each of them.

The configs that this user wrote are remembered outside all run folders, in
`$XDG_STATE_HOME/fedsim/configs` (`~/.local/state` if unset), by their fingerprint. It is BLAKE2b:
nobody can write another config with the same one.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fedsim.config import Config
from fedsim.config.outside import names_outside
from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording

OUTSIDE = Rule(
    "recording",
    "`config.toml`",
    "must name no module, path or address, except in a run of your own or with --allow",
)
CHECKS = (OUTSIDE,)


def check(
    path: Path, config: Config, allow: Iterable[str] = (), *, given: Iterable[str] = ()
) -> None:
    """Refuse a recording's config that names what this user has not allowed.

    Args:
        path: The file of the config.
        config: What it says, or the part of it that is used.
        allow: Modules, `module:function`, paths and addresses that may be used.
        given: What the user named now. It may be used as it is: `llg` does not allow `llg:f`.

    Raises:
        BadRecording: It names something else, and this user did not write it.
    """
    allowed, named = set(allow), set(given)
    names = [
        (key, name)
        for key, name in names_outside(config)
        if name not in named and not _is_in(name, allowed)
    ]
    if not names or _is_remembered(path):
        return
    key, name = names[0]
    raise BadRecording(
        f"{path}: {key} {OUTSIDE.rule}, got '{name}'; "
        f"if you trust it, add --allow {_to_allow(name)}"
    )


def remember(path: Path, config: Config) -> None:
    """Remember a config that this user wrote; without a place to do so, nothing is remembered."""
    if not any(names_outside(config)):
        return
    with suppress(OSError, RuntimeError):
        memory = _memory(path)
        memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        memory.touch()


def _is_in(name: str, allowed: set[str]) -> bool:
    return name in allowed or _to_allow(name) in allowed


def _to_allow(name: str) -> str:
    """Return what to allow for a name: the module of a function, or all of it."""
    module, colon, _ = name.partition(":")
    return module if colon and "/" not in name else name


def _is_remembered(path: Path) -> bool:
    try:
        return _memory(path).exists()
    except (OSError, RuntimeError):  # a user without a home remembers nothing
        return False


def _memory(path: Path) -> Path:
    """Return the file whose presence says that this user wrote a config.

    Raises:
        RuntimeError: This user has no home.
    """
    root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return (
        root / "fedsim" / "configs" / hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest()
    )
