"""Tables as sealed parquet files: types and sizes are checked before any value is read.

Arrow's threads are not used, here and elsewhere: one that lets go of what Python made when the
interpreter has ended aborts the process, whose work was done.
"""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

import io
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from fedsim.core import seals
from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.core.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = Rule("recording", "columns", "must have the names and types that fedsim wrote")
ROWS = Rule("recording", "rows of a table", "must be at most 8 for each byte of the file")
TEXTS = Rule("recording", "texts of a table", "must take at most 1 GiB together")
FULL = Rule("recording", "cells of a table", "must be full, except client and measured values")
CHECKS = (COLUMNS, ROWS, TEXTS, FULL)
_CELLS = {str: pa.string(), int: pa.int32(), float: pa.float64(), bool: pa.bool_()}
_MOST_BYTES, _MOST_TEXT = 2**32, 2**30
_FEW = 10_000  # rows of which a small file may be, however well it is compressed


def schema_of(row: type) -> pa.Schema:
    """Return the columns of a table that has a row for each value of a dataclass; None is null."""
    hints = get_type_hints(row)
    return pa.schema([(field.name, _CELLS[_of_cell(hints[field.name])]) for field in fields(row)])


def _of_cell(hint: Any) -> type:
    """Return the type of the values that are not None."""
    return next((each for each in get_args(hint) if each is not type(None)), hint)


def write_table(path: Path, table: pa.Table, of: str = "") -> None:
    """Write one parquet file with its checksum, whole or not at all.

    Args:
        path: Where to.
        table: The rows.
        of: What they are about, for `written_of`.
    """
    buffer = io.BytesIO()
    whole = table.combine_chunks()  # equal rows are equal bytes, however they came together
    metadata = {"checksum": seals.UNSEALED} | ({"of": of} if of else {})
    pq.write_table(whole.replace_schema_metadata(metadata), buffer)
    data = seals.sealed(buffer.getvalue())
    write_whole(path, lambda temporary: temporary.write_bytes(data))


def read_table(path: Path, schema: pa.Schema, required: Collection[str] = ()) -> pa.Table:
    """Read one parquet file of a known schema, whose columns `required` have no empty cells.

    Raises:
        BadRecording: The file is missing, not as it was written, not parquet, has other columns,
            or is too large.
    """
    data = seals.read(path, _MOST_BYTES)
    try:
        table = _read(path, data, schema)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise BadRecording(f"{path}: must be a parquet file ({error})") from None
    for name in required:
        if empty := table[name].null_count:
            raise BadRecording(f"{path}: {FULL.field} {FULL.rule}, got {empty} empty in {name}")
    return table


def written_of(path: Path) -> str:
    """Return what the rows of a file are about, as it says; empty where it does not."""
    return ((pq.read_schema(path).metadata or {}).get(b"of") or b"").decode(errors="replace")


def frame(table: pa.Table) -> "pd.DataFrame":
    """Return a table as pandas' frame."""
    return table.to_pandas(use_threads=False)


def _read(path: Path, data: bytes, schema: pa.Schema) -> pa.Table:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    stored = pq.ParquetFile(pa.BufferReader(data)).schema_arrow
    if stored.remove_metadata() != schema.remove_metadata():
        got = ", ".join(f"{field.name} {field.type}" for field in stored)[:300]
        raise BadRecording(f"{path}: {COLUMNS.field} {COLUMNS.rule}, got {got}")
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    if (rows := file.metadata.num_rows) > _FEW + 8 * len(data):
        raise BadRecording(f"{path}: {ROWS.field} {ROWS.rule}, got {rows} in {len(data)} bytes")
    table = file.read(use_threads=False)
    if (size := sum(_length(table[name]) for name in texts)) > _MOST_TEXT:
        raise BadRecording(f"{path}: {TEXTS.field} {TEXTS.rule}, got {size} bytes")
    return table.cast(schema).replace_schema_metadata(None)


def _length(texts: pa.ChunkedArray) -> int:
    """Return how many bytes texts take when each stands in its row."""
    import pyarrow.compute as pc

    total = 0
    for chunk in texts.chunks:
        lengths = pc.binary_length(chunk.dictionary)
        total += pc.sum(pc.take(lengths, chunk.indices)).as_py() or 0
    return total
