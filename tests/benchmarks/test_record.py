"""Rows of benchmarks, by hand."""

import csv
import sys

from tests.benchmarks.record import COLUMNS, record


def test_rows_are_appended_under_one_header(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["games.py", "--data", str(tmp_path / "mnist"), "--grid"])
    record("games", {"batches of 4: times the loop": 7.91234, "grid, s": 12}, folder=tmp_path)
    path = record("games", {"grid, s": 1e-6}, folder=tmp_path)
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 4
    rows = list(csv.DictReader(lines))
    assert [(row["what"], row["value"]) for row in rows] == [
        ("batches of 4: times the loop", "7.912"), ("grid, s", "12"), ("grid, s", "1e-06"),
    ]  # fmt: skip
    command = "uv run python -m tests.benchmarks.games --data mnist --grid"
    assert {row["command"] for row in rows} == {command}
    assert all(row["torch"] and int(row["cores"]) > 0 for row in rows)
