"""The columns of the ledger and of the table of metrics, from their schemas and types."""

import inspect
import re

from texts import code, table

from fedsim.core.rows import Leak, Measure
from fedsim.run.ledger import LEAKAGE, METRICS


def page() -> str:
    """Return a table of columns for each of the two files."""
    texts = []
    for name, schema, row, special in (
        ("leakage.parquet", LEAKAGE, Leak, LEAKAGE_MEANING),
        ("metrics.parquet", METRICS, Measure, METRICS_MEANING),
    ):
        meaning = {**attributes(inspect.getdoc(row) or ""), **SHARED, **special}
        rows = [
            (code(column.name), str(column.type), meaning.get(column.name, "")) for column in schema
        ]
        texts += [f"### `{name}`", table(("column", "type", "meaning"), rows)]
    return "\n\n".join(texts)


SHARED = {
    "round": "The round, from 1.",
    "client": "The client. Null where the row is about all clients together.",
}
LEAKAGE_MEANING = {
    "attack": "The attack's name, as in `fedsim list attacks`, or the audit method.",
    "family": "The kind of secret: label, membership, reconstruction, …, or audit.",
    "metric": "What was measured, such as `asr`, `skill`, `auroc` or `psnr`.",
    "value": "The grade. Null unless `outcome` is `graded`.",
    "adaptive": "Whether the adversary knew the clients' defense.",
}
METRICS_MEANING = {
    "round": "The round, from 1. Round 0 is before training.",
    "split": "What the row is about: `test`, `client`, `server`, `defense`, `attack` or `audit`.",
    "metric": "What was measured, such as `accuracy`, `update_norm`, `epsilon` or `failed`.",
    "value": "The number. It is 1 where the row only states a fact, such as a failure.",
    "reason": "Why a client or an attack failed, or what a number means. Null otherwise.",
}


def attributes(text: str) -> dict[str, str]:
    """Return what a class says of its attributes."""
    listed = text.partition("Attributes:")[2]
    pairs = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in pairs}
