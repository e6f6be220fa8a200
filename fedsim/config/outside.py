"""What a config names outside fedsim: code that would be imported, paths and addresses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsim.config.root import Config

SIGNS = (":", "/", "\\", "~")  # of a module's function, a path or an address
ON_TAPE = "foreign.arrays."  # names of arrays, in which any sign may stand
# A bare word in these is a path or an address, too.
PATHS = {
    "data.root",
    "model.base",
    "foreign.auxiliary_root",
    "foreign.truth",
    "engine.address",
    "track.uri",
}
WORDS_OR_PATHS = {"data.users", "data.tokeniser"}  # a path where there is such a file
ONLINE = "track.online"


def names_outside(config: Config) -> Iterator[tuple[str, str]]:
    """Yield key and value of each text that could be imported, opened or connected to."""
    tables = config.model_dump(mode="json", exclude_none=True, exclude={"versions"})
    for key, text in _texts("", tables):
        if key.startswith(ON_TAPE):
            continue
        is_path = key in PATHS or (key in WORDS_OR_PATHS and _exists(text))
        if is_path or any(sign in text for sign in SIGNS) or ".." in text:
            yield key, text
    if config.track and config.track.online:  # to the server of this user's own account
        yield ONLINE, "true"


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a null byte
        return False


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every text in a value, with where it stands."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(f"{key}.{name}" if key else name, part)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _texts(f"{key}.{place}", part)
