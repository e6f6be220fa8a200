"""What any value of a config may be, wherever it stands: checked before its key is looked at."""

import datetime
import math
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from fedsim.core.accepts import Rule
from fedsim.core.catalog import lower_first
from fedsim.core.errors import ConfigError, one_line

DEEPEST = 16  # lists and tables in each other
LONGEST = 10_000  # characters of a text
MOST = 2**63  # TOML's whole numbers are smaller
SHOWN = 80  # characters of a value in a sentence

PART = "config"
WHOLE = Rule(PART, "a whole number", "must be smaller than 2**63")
FINITE = Rule(PART, "a number", "must be finite")
TEXT = Rule(PART, "text", f"must be UTF-8 of at most {LONGEST} characters, none of them null")
NAME = Rule(PART, "a key", "must be of at most 100 characters")
KIND = Rule(PART, "a value", "must be text, a number, true, false, a list or a table")
DEPTH = Rule(PART, "lists and tables", f"must nest at most {DEEPEST} deep")
CHECKS = (WHOLE, FINITE, TEXT, NAME, KIND, DEPTH)


def check_values(tables: Mapping[str, Any]) -> None:
    """Refuse what no key of a config takes.

    Raises:
        ValueError: A value breaks one of `CHECKS`; the sentence begins with its key.
    """
    for key, value in _leaves(tables):
        if isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, int) and abs(value) >= MOST:
                raise ValueError(f"{key}: {WHOLE.rule}, got {value.bit_length()} bits")
            if not math.isfinite(value):
                raise ValueError(f"{key}: {FINITE.rule}, got {value}")
        elif isinstance(value, str):
            if len(value) > LONGEST or not _is_text(value):
                raise ValueError(f"{key}: {TEXT.rule}, got {shown(value)}")
        elif isinstance(value, datetime.date | datetime.time):
            raise ValueError(f"{key}: {KIND.rule}, got the date or time {value}")


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables in a TOML text.

    Raises:
        TOMLDecodeError: It is not TOML.
        ValueError: It is, and no parser can hold it: numbers of thousands of digits, lists in lists
            without end.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except Exception as error:  # the parser gives up in ways of its own
        raise ValueError(lower_first(one_line(error).partition(";")[0])) from None


def parse_value(key: str, text: str) -> Any:
    """Return the value that a text holds as TOML.

    Args:
        key: First in the sentence.
        text: The value.

    Raises:
        TOMLDecodeError: It is not one value of TOML.
        ConfigError: No parser can hold it.
    """
    try:
        tables = parse_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        raise ConfigError(f"{key}: must be a value of TOML, got {shown(text)} ({error})") from None
    if list(tables) != ["value"]:  # further lines
        raise tomllib.TOMLDecodeError("several values")
    return tables["value"]


def shown(value: object) -> str:
    """Return a value as a sentence shows it: its beginning, in one line of plain characters."""
    text = repr(value).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _leaves(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every key and plain value of a table, and every name in it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), tables)]
    while waiting:
        keys, value = waiting.pop()
        key = ".".join(keys)
        if len(keys) > DEEPEST:
            raise ValueError(f"{key[:SHOWN]}: {DEPTH.rule}, got more")
        if isinstance(value, Mapping):
            for name, inner in value.items():
                if len(str(name)) > 100:
                    raise ValueError(
                        f"{key or 'config'}: {NAME.field} {NAME.rule}, got {shown(name)}"
                    )
                yield f"{key}: a key" if key else "a key", name
                waiting.append(((*keys, str(name)), inner))
        elif isinstance(value, list | tuple):
            waiting += [((*keys, str(place)), inner) for place, inner in enumerate(value)]
        else:
            yield key, value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character, as a command line that is not UTF-8 gives
        return False
    return "\0" not in value
