"""The two tables for other programs: all rows, strict JSON, and CSV that comes back."""

import io
import json
import math

import pandas as pd
import pytest

from fedsim.run.exported import as_csv, as_json
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config


@pytest.fixture(scope="module")
def folder(recordings):
    return RunFolder(recordings.of(small_config()).path)


def test_csv_holds_both_tables_to_the_last_bit(folder):
    table = pd.read_csv(io.BytesIO(as_csv(folder)), dtype={"client": str})
    for name, rows in (("leakage", folder.ledger()), ("metrics", folder.metrics())):
        part = table[table["table"] == name]
        assert len(part) == rows.num_rows
        values = [math.nan if value is None else value for value in rows["value"].to_pylist()]
        assert part["value"].tolist() == pytest.approx(values, rel=0, abs=0, nan_ok=True)
        assert part["metric"].tolist() == rows["metric"].to_pylist()


def test_json_is_strict_and_holds_everything(folder):
    data = json.loads(as_json(folder), parse_constant=pytest.fail)
    assert data["leakage"] == folder.ledger().to_pylist()
    assert len(data["metrics"]) == folder.metrics().num_rows
    assert data["config"]["federation"]["rounds"] == 3


def test_what_is_no_number_is_null(folder, monkeypatch):
    table = folder.metrics()
    place = table.column_names.index("value")
    import pyarrow as pa

    values = pa.array([math.nan, math.inf, *table["value"].to_pylist()[2:]], pa.float64())
    table = table.set_column(place, table.schema.field("value"), values)
    monkeypatch.setattr(RunFolder, "metrics", lambda _: table)
    rows = json.loads(as_json(folder), parse_constant=pytest.fail)["metrics"]
    assert [row["value"] for row in rows[:2]] == [None, None]
