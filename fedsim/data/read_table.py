"""Reading a published table: its own columns, words and ranges, and no other table."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.core.accepts import Rule

if TYPE_CHECKING:
    import pandas as pd

PART = "published table"
TEXT = Rule(PART, "a file", "must be UTF-8 text")
COUNT = Rule(PART, "every line", "must hold one value per column, separated by commas")
NUMBER = Rule(PART, "a number", "must be finite and in its column's range")
WORD = Rule(PART, "a category", "must be a word and no number")
CHOICE = Rule(PART, "a label or code", "must be one of its column's")
ROWS = Rule(PART, "a file", "must hold rows without missing values")
CHECKS = (TEXT, COUNT, NUMBER, WORD, CHOICE, ROWS)


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column of a table may hold.

    Attributes:
        name: The column.
        low: Smallest number; None for a column of words.
        high: Largest number.
        choices: The only values it has, as text or as numbers; any if empty.
    """

    name: str
    low: float | None = None
    high: float = math.inf
    choices: frozenset[str] | frozenset[float] = frozenset()


def read_table(path: Path, columns: Sequence[Column]) -> "pd.DataFrame":
    """Return the rows of a comma-separated file without header; NaN for `?`.

    Empty lines, and lines that begin with `|` as UCI's remarks do, are no rows.

    Args:
        path: The file.
        columns: What it holds, in order.

    Raises:
        OSError: It cannot be read.
        ValueError: It is another table; the sentence gives line, rule and value.
    """
    import pandas as pd

    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: {TEXT.rule}, got {error.reason}") from None
    numbered = [(k, line) for k, line in enumerate(lines, start=1) if line.strip()]
    numbered = [(k, line) for k, line in numbered if not line.startswith("|")]
    rows = list(csv.reader((line for _, line in numbered), skipinitialspace=True))
    if len(rows) != len(numbered):
        raise ValueError(f"{path.name}: {COUNT.rule}, got a value of several lines")
    for (number, _), row in zip(numbered, rows, strict=True):
        if len(row) != len(columns):
            raise ValueError(
                f"{path.name}, line {number}: must hold {len(columns)} values separated by commas, "
                f"got {len(row)}"
            )
    if not rows:
        raise ValueError(f"{path.name}: {ROWS.rule}, got none")
    table = {}
    for column, texts in zip(columns, zip(*rows, strict=True), strict=True):
        values = [None if text == "?" else text.strip() for text in texts]
        check_column(path.name, column, {text for text in values if text is not None})
        series = pd.Series(values, dtype=object)
        table[column.name] = series if column.low is None else pd.to_numeric(series)
    return pd.DataFrame(table)


def check_column(place: str, column: Column, texts: Iterable[str]) -> None:
    """Refuse values that a column of this table cannot have.

    Args:
        place: Of the table, for the sentence.
        column: What it may hold.
        texts: Its different values.

    Raises:
        ValueError: There is one; the sentence names column, rule and value.
    """
    for text in sorted(texts):
        number = _number(text)
        if column.low is not None:
            if number is None or not column.low <= number <= column.high:
                raise _refusal(place, column, f"a number from {column.low} to {column.high}", text)
            if column.choices and number not in column.choices:
                raise _refusal(place, column, f"one of {_listed(column.choices)}", text)
        elif column.choices and text not in column.choices:
            raise _refusal(place, column, f"one of {_listed(column.choices)}", text)
        elif not text or number is not None:
            raise _refusal(place, column, "a word", text)


def _refusal(place: str, column: Column, rule: str, text: str) -> ValueError:
    return ValueError(f"{place}, column {column.name}: must be {rule}, got '{text[:80]}'")


def _listed(choices: Iterable[str | float]) -> str:
    words = [choice if isinstance(choice, str) else f"{choice:g}" for choice in choices]
    return ", ".join(sorted(words))


def _number(text: str) -> float | None:
    """Return a text as a number, infinite and NaN too; None where it is none."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
