"""The boundary around foreign code: whatever it raises becomes one sentence.

A part that a user brings (a data set, a model, a strategy, a defense, an attack, a mechanism) may
raise anything. Its own words, with the file and line, tell the user more than a guess of ours.
"""

import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsim.core.errors import ConfigError, FedsimError, one_line, shortened

LIBRARIES = tuple(
    {str(Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
OUR_ROOMS = tuple(
    str(Path(__file__).parents[2] / room)
    for room in ("fedsim", "clients", "strategies", "adversary", "defenses")
)
OUR_FORM = re.compile(r"[\w.\[\] -]+: (must|needs) ")
PASSING = (FedsimError, KeyboardInterrupt, GeneratorExit)  # what no boundary changes
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
    except PASSING:
        raise
    except BaseException as cause:  # also SystemExit, and what extensions in Rust raise
        raise error(f"{thing}: {rule}, got {raised(cause)}") from cause


@contextmanager
def in_one_line() -> Iterator[None]:
    """Let a refusal be one line of characters that a terminal shows, whatever keys are called.

    Raises:
        ConfigError: The refusal, in one line.
    """
    try:
        yield
    except ConfigError as error:
        text = "".join(it if it.isprintable() else repr(it)[1:-1] for it in str(error))
        raise ConfigError(shortened(text)) from None


def explained(error: BaseException) -> str:
    """Return why a part failed: a sentence as it is, anything else with type and place."""
    return one_line(error) if is_sentence(error) else raised(error)


def is_sentence(error: BaseException) -> bool:
    """Return whether an exception is a rule of a part: `thing: must …`, or a ValueError of ours."""
    if not isinstance(error, ValueError):
        return False
    return bool(OUR_FORM.match(one_line(error))) or not _raised_at(error, ours=False)


def raised(error: BaseException, *, ours: bool = False) -> str:
    """Return type, message and place of an exception: `ValueError: no rows (mine.py:12)`.

    Args:
        error: The exception.
        ours: Whether a place in fedsim counts where there is none in the user's code.
    """
    name, message = type(error).__name__, one_line(error)
    text = name if message == name else f"{name}: {message}"
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}…"
    place = _raised_at(error, ours=ours)
    return f"{text} ({place})" if place else text


def _raised_at(error: BaseException, *, ours: bool) -> str:
    """Return `file:line` of the innermost call of the user's code; empty if none."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and (_lies_in(frame.filename, OUR_ROOMS) or not _lies_in(frame.filename, LIBRARIES))
    ]
    foreign = [frame for frame in frames if not _lies_in(frame.filename, OUR_ROOMS)]
    if not foreign and not (ours and frames):
        return ""
    frame = (foreign or frames)[-1]
    return f"{_short(frame.filename)}:{frame.lineno}"


def _lies_in(filename: str, folders: Iterable[str]) -> bool:
    return any(Path(filename).is_relative_to(folder) for folder in folders)


def _short(filename: str) -> str:
    """Return a file and its folder: the same in every process, and nothing of the machine."""
    return "/".join(Path(filename).parts[-2:])
