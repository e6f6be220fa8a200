"""A run's two tables as other programs read them: one CSV table, or strict JSON."""

import io
import json
import math
from typing import Any

import pyarrow as pa

from fedsim.config import Config
from fedsim.run.ledger import LEAKAGE, METRICS
from fedsim.run.run_folder import RunFolder

TABLE = "table"  # the column that tells the rows of the two tables apart
LEDGER, MEASURES = "leakage", "metrics"


def as_csv(folder: RunFolder) -> bytes:
    """Return both tables as one: a row's `table` says which, cells that it does not have are empty.

    Raises:
        BadRecording: A table or the config is damaged.
    """
    from pyarrow import csv

    _config(folder)  # refuses what is no run
    columns = pa.unify_schemas([LEAKAGE, METRICS])
    schema = pa.schema([pa.field(TABLE, pa.string()), *columns])
    buffer = io.BytesIO()
    with csv.CSVWriter(buffer, schema) as writer:
        for name, table in ((LEDGER, folder.ledger()), (MEASURES, folder.metrics())):
            writer.write_table(_widened(name, table, schema))
    return buffer.getvalue()


def as_json(folder: RunFolder) -> str:
    """Return both tables as one JSON object of lists of rows, with the run's config.

    A value that is no number (NaN, infinity) is null, as JSON has none.

    Raises:
        BadRecording: A table or the config is damaged.
    """
    config = _config(folder)
    data = {
        "run": str(folder.path),
        "config": config.model_dump(mode="json", exclude_none=True) if config else None,
        LEDGER: _rows(folder.ledger()),
        MEASURES: _rows(folder.metrics()),
    }
    return json.dumps(data, allow_nan=False)


def _config(folder: RunFolder) -> Config | None:
    """Return a run's config; another app's tape may have none."""
    return folder.config if (folder.path / "config.toml").exists() else None


def _widened(name: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with all columns of the schema."""
    columns = {TABLE: pa.array([name] * len(table), pa.string())}
    columns |= {field: table[field] for field in table.column_names}
    arrays = [columns.get(it.name, pa.nulls(len(table), it.type)) for it in schema]
    return pa.table(arrays, schema=schema)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    return [{key: _strict(value) for key, value in row.items()} for row in table.to_pylist()]


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
