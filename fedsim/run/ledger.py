"""The two tables of a run, as parquet: leakage (the ledger) and metrics."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from fedsim.core.rows import Leak, Measure
from fedsim.core.tables import read_table, schema_of
from fedsim.core.units import ADAPTIVE

LEAKAGE = pa.schema(
    [
        pa.field("round", pa.int32()),
        pa.field("client", pa.string()),
        pa.field("attack", pa.string()),
        pa.field("family", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("blind", pa.float64()),
        pa.field("seconds", pa.float64()),
        pa.field("ceiling", pa.float64()),
        pa.field("adaptive", pa.bool_()),
        pa.field("outcome", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
AUDIT = "audit"  # the family of rows that hold an ε, which no mean is taken of
METRICS = schema_of(Measure)
LEDGER, MEASURES = "leakage.parquet", "metrics.parquet"
REQUIRED = ("round", "attack", "family", "split", "metric", "seconds", "adaptive", "outcome")


def read_rows(path: Path, schema: pa.Schema) -> pa.Table:
    """Read one of the two tables.

    Raises:
        BadRecording: As `read_table`.
    """
    return read_table(path, schema, [name for name in schema.names if name in REQUIRED])


def leakage_table(rows: Iterable[Leak]) -> pa.Table:
    """Return ledger rows as a table."""
    return pa.Table.from_pylist([vars(row) for row in rows], schema=LEAKAGE)


def metrics_table(rows: Iterable[Measure]) -> pa.Table:
    """Return metric rows as a table."""
    return pa.Table.from_pylist([vars(row) for row in rows], schema=METRICS)


def attacks_of(ledger: pa.Table) -> pa.Table:
    """Return the rows of attacks: no audits."""
    import pyarrow.compute as pc

    return ledger.filter(pc.not_equal(ledger["family"], AUDIT))


def titled(ledger: pa.Table) -> pa.Table:
    """Return the ledger with a column `title`: what tables call the attack of each row."""
    import pyarrow.compute as pc

    adaptive = pc.binary_join_element_wise(ledger["attack"], ADAPTIVE, "")
    return ledger.append_column("title", pc.if_else(ledger["adaptive"], adaptive, ledger["attack"]))


def over_clients(ledger: pa.Table) -> pa.Table:
    """Return what a mean over clients is taken of: no pooled row beside rows of single clients.

    A row that is pooled over clients stays where its attack has no others of that metric and round.
    """
    import pyarrow.compute as pc

    pooled = pc.is_null(ledger["client"])
    adaptive = pc.cast(ledger["adaptive"], pa.string())
    round_ = pc.cast(ledger["round"], pa.string())
    keys = pc.binary_join_element_wise(ledger["attack"], adaptive, ledger["metric"], round_, "\n")
    single = pc.is_in(keys, value_set=keys.filter(pc.invert(pooled)).combine_chunks())
    return ledger.filter(pc.invert(pc.and_(pooled, single)))
