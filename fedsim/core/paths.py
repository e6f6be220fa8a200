"""Paths as users write them."""

import os
from pathlib import Path

from fedsim.core.errors import ConfigError


def user_path(key: str, text: str | Path) -> Path:
    """Return a path that a user wrote, with `~` put in.

    Args:
        key: What it stands for, first in the sentence.
        text: As it was written.

    Raises:
        ConfigError: It holds a null byte, is not text, is too long for any file, or is in the home
            of nobody.
    """
    path = Path(text)
    try:
        os.fsencode(path)
        path = path.expanduser()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{key}: must be a path, got {str(text)!r} ({error})") from None
    if (
        len(os.fsencode(path)) >= 4096
        or max(map(len, map(os.fsencode, path.parts)), default=0) > 255
    ):
        raise ConfigError(
            f"{key}: must be a path with names of at most 255 bytes, got a longer one"
        )
    if "\0" in str(path):
        raise ConfigError(f"{key}: must be a path without null bytes, got {str(text)!r}")
    return path
