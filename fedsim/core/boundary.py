"""The boundary around foreign code: whatever it raises becomes one sentence.

A part that a user brings (a data set, a model, a strategy, a defense, an attack, a mechanism) may
raise anything. Its own words, with the file and line, tell the user more than a guess of ours.
"""

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsim.core.errors import ConfigError, FedsimError, one_line

LIBRARIES = tuple(
    {str(Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
OUR_ROOMS = tuple(
    str(Path(__file__).parents[2] / room)
    for room in ("fedsim", "clients", "strategies", "adversary", "defenses")
)
LONGEST = 300  # characters of what foreign code says


@contextmanager
def boundary(thing: str, rule: str, *, error: type[FedsimError] = ConfigError) -> Iterator[None]:
    """Turn whatever foreign code raises inside the block into one sentence; Ctrl-C passes.

    Args:
        thing: The key or part, first in the sentence: "data.name".
        rule: What the code must do: "'mine:load' must return a Dataset".
        error: What is raised. Its cause is what the code raised.

    Raises:
        FedsimError: The code raised something; our own errors pass as they are.
    """
    try:
        yield
    except (FedsimError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as cause:  # also SystemExit, and what extensions in Rust raise
        raise error(f"{thing}: {rule}, got {raised(cause)}") from cause


def raised(error: BaseException) -> str:
    """Return type, message and place of an exception: `ValueError: no rows (mine.py:12)`."""
    name, message = type(error).__name__, one_line(error)
    text = name if message == name else f"{name}: {message}"
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}…"
    place = raised_at(error)
    return f"{text} ({place})" if place else text


def raised_at(error: BaseException) -> str:
    """Return `file:line` of the innermost call that is neither a library's nor ours; empty if none.

    Where all calls are, the innermost of them.
    """
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not _is_known(frame.filename)]
    if not frames:
        return ""
    frame = (foreign or frames)[-1]
    return f"{_short(frame.filename)}:{frame.lineno}"


def _is_known(filename: str) -> bool:
    return filename.startswith("<") or any(
        Path(filename).is_relative_to(folder) for folder in (*LIBRARIES, *OUR_ROOMS)
    )


def _short(filename: str) -> str:
    """Return a path from the working directory where it lies below it."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the working directory is deleted
        return filename
