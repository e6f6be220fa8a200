"""The columns of the ledger and of the table of metrics, from their schemas and types."""

import inspect
import re

from texts import code, table

from fedsim.core.types import Leak, Measure
from fedsim.run.ledger import LEAKAGE, METRICS


def page() -> str:
    """Return a table of columns for each of the two files."""
    texts = []
    for name, schema, row in (
        ("leakage.parquet", LEAKAGE, Leak),
        ("metrics.parquet", METRICS, Measure),
    ):
        meaning = {**MEANING, **attributes(inspect.getdoc(row) or "")}
        rows = [
            (code(column.name), str(column.type), meaning.get(column.name, "")) for column in schema
        ]
        texts += [f"### `{name}`", table(("column", "type", "meaning"), rows)]
    return "\n\n".join(texts)


MEANING = {
    "round": "The round, from 1.",
    "attack": "The attack's name, as in `fedsim list attacks`, or the audit method.",
    "family": "The kind of secret: label, membership, reconstruction, …, or audit.",
    "metric": "What was measured, such as `asr`, `skill`, `auroc` or `psnr`.",
    "client": "The client. Null where the row is about all clients together.",
    "split": "`train`, `test`, or the kind of event.",
    "reason": "Why a client failed, or why a number is missing.",
    "value": "The number. Null where there is none.",
}


def attributes(text: str) -> dict[str, str]:
    """Return what a class says of its attributes."""
    listed = text.partition("Attributes:")[2]
    pairs = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in pairs}
