"""The rows that benchmarks wrote into `docs/results`."""

import csv
import json
from pathlib import Path
from typing import Any

from texts import table

FOLDER = Path(__file__).parents[1] / "results"


def page() -> str:
    """Return a table for each file of rows; a sentence where no benchmark was run."""
    files = sorted(path for path in FOLDER.iterdir() if path.suffix in (".csv", ".jsonl"))
    texts = [f"## `{path.stem}`\n\n{table_of(rows(path))}" for path in files]
    return "\n\n".join(texts) or "No benchmark has written rows yet."


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of one file."""
    with path.open(encoding="utf-8") as lines:
        if path.suffix == ".csv":
            return list(csv.DictReader(lines))
        return [json.loads(line) for line in lines if line.strip()]


def table_of(lines: list[dict[str, Any]]) -> str:
    """Return rows as one table; a row may lack columns."""
    header = list(dict.fromkeys(key for row in lines for key in row))
    return table(header, [[str(row.get(key, "")) for key in header] for row in lines])
