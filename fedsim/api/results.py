"""What a ledger says, in a few numbers."""

from typing import Any

import pyarrow as pa

from fedsim.run.ledger import AUDIT
from fedsim.run.outcomes import Answers, answers_of, means_of


def means(ledger: pa.Table) -> list[dict[str, Any]]:
    """Return the mean of each attack's metrics, over clients and rounds; audits have none.

    Value, blind guess and time are means over the rows that are graded, and over all rows where
    none is. `graded` counts these rows, `of` all; `failed` and `refused` count the others that have
    no answer. A row is one update, or one round where it is pooled over clients.
    """
    return means_of(ledger)


def answers(ledger: pa.Table) -> list[Answers]:
    """Return for each attack how many updates it answered, failed on and refused, and why."""
    return answers_of(ledger)


def last_audit(ledger: pa.Table) -> list[dict[str, Any]]:
    """Return what each method of an audit found by the last audited round, beside the claim."""
    rows = [row for row in ledger.to_pylist() if row["family"] == AUDIT]
    last = max((row["round"] for row in rows), default=0)
    return [
        {key: row[key] for key in ("round", "attack", "metric", "value")}
        | {"theory": row["ceiling"]}
        for row in rows
        if row["round"] == last
    ]
