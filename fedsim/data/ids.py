"""Ids of users: text, one a line, read as it stands."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.core.accepts import Rule
from fedsim.core.boundary import in_one_line
from fedsim.core.errors import ConfigError

LONGEST = 256  # characters of an id
PART, FIELD = "ids of users", "data.users"

READABLE = Rule(PART, FIELD, "must be a readable file")
ENCODED = Rule(PART, FIELD, "must be UTF-8 text, or an .npy file")
FILLED = Rule(PART, FIELD, "must hold an id in every line; empty lines may stand at the end")
SINGLE = Rule(PART, FIELD, "must hold one id per line, without comma, semicolon or tab")
PRINTED = Rule(PART, FIELD, f"must hold ids of at most {LONGEST} characters, none of them null")
VECTOR = Rule(PART, FIELD, "must hold one vector of whole numbers or text, as an .npy file")
COMPLETE = Rule(PART, FIELD, "must give an id to every row, none of them missing")
COUNTED = Rule(PART, FIELD, "must hold an id for each training row")
REPEATED = Rule(PART, FIELD, "must give some user more than one row; `iid` deals single rows")
CHECKS = (READABLE, ENCODED, FILLED, SINGLE, PRINTED, VECTOR, COMPLETE, COUNTED, REPEATED)

_MANY = re.compile(r"[,;\t]")


@in_one_line()
def read_ids(path: Path, num_rows: int) -> NDArray[Any]:
    """Return an id per training row, from a text file with one a line or from an `.npy` file.

    Nothing in a line has a meaning: `#` is a letter. A byte-order mark, Windows' line ends, and
    spaces around an id are no part of it.

    Args:
        path: The file.
        num_rows: Of the training set.

    Raises:
        ConfigError: The file breaks one of `CHECKS`.
    """
    ids = _stored(path) if path.suffix == ".npy" else _text(path)
    if len(ids) != num_rows:
        raise ConfigError(COUNTED.message(f"{len(ids)} ids in {path} for {num_rows} rows"))
    if num_rows > 1 and len(np.unique(ids)) == num_rows:
        raise ConfigError(REPEATED.message(f"{num_rows} different ids for {num_rows} rows"))
    return ids


@in_one_line()
def checked_ids(ids: NDArray[Any], name: str) -> NDArray[Any]:
    """Return a column of ids whose values can be told apart: whole numbers, text, or floats.

    Args:
        ids: One per row.
        name: The column.

    Raises:
        ConfigError: An id is missing, or they are of several kinds.
    """
    import pandas as pd

    if missing := int(np.count_nonzero(pd.isna(ids))):
        raise ConfigError(COMPLETE.message(f"{missing} missing in column '{name}'"))
    if ids.dtype.kind != "O":
        return ids
    kinds = sorted({type(value).__name__ for value in ids})
    if kinds != ["str"]:
        raise ConfigError(COMPLETE.message(f"{' and '.join(kinds)} in column '{name}'"))
    _check_printed(ids, name)
    return ids.astype(str)


def _text(path: Path) -> NDArray[Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(READABLE.message(f"{path} ({error.strerror})")) from None
    except UnicodeDecodeError as error:
        raise ConfigError(ENCODED.message(f"{path} ({error.reason})")) from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    ids = [line.strip() for line in lines]
    for number, line in enumerate(ids, start=1):
        if not line:
            raise ConfigError(FILLED.message(f"none in line {number} of {path}"))
        if _MANY.search(line):
            raise ConfigError(SINGLE.message(f"'{line[:80]}' in line {number} of {path}"))
    _check_printed(ids, str(path))
    return np.array(ids)


def _stored(path: Path) -> NDArray[Any]:
    try:
        ids = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ConfigError(READABLE.message(f"{path} ({error})")) from None
    except Exception as error:  # NumPy's reader raises whatever the bytes lead it to
        raise ConfigError(VECTOR.message(f"{path} ({error})")) from None
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iuSU":
        raise ConfigError(
            VECTOR.message(f"{getattr(ids, 'dtype', type(ids))}{np.shape(ids)} in {path}")
        )
    if ids.dtype.kind not in "SU":
        return ids
    try:
        texts = np.array([_decoded(value).strip() for value in ids.tolist()], dtype=object)
    except UnicodeDecodeError as error:
        raise ConfigError(ENCODED.message(f"{path} ({error.reason})")) from None
    if not all(texts):
        raise ConfigError(FILLED.message(f"an empty id in {path}"))
    _check_printed(texts, str(path))
    return texts.astype(str)


def _decoded(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _check_printed(ids: Iterable[str], place: str) -> None:
    for text in ids:
        if len(text) > LONGEST or "\0" in text:
            raise ConfigError(PRINTED.message(f"{text[:40]!r} ({len(text)} characters) in {place}"))
