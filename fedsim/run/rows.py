"""Rows of the two tables: put in order, and those of some attacks left out."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

import pyarrow as pa

from fedsim.run import notes
from fedsim.run.ledger import METRICS


def in_order(table: pa.Table) -> pa.Table:
    """Sort by round, client (numbers in their own order), attack and metric."""
    import pyarrow.compute as pc

    keyed = table.append_column("width", pc.utf8_length(table["client"]))
    keys = ("round", "width", "client", "attack", "adaptive", "metric")
    return table.take(pc.sort_indices(keyed, sort_keys=[(key, "ascending") for key in keys]))


def without_attacks(table: pa.Table, attacks: set[str]) -> pa.Table:
    """Leave out the rows of some attacks: in the ledger, or what is said of them in the metrics."""
    if not table.schema.equals(METRICS):
        return without(table, "attack", attacks)
    return without(table, "metric", notes.metrics_of(attacks))


def without(table: pa.Table, column: str, values: set[str]) -> pa.Table:
    """Leave out the rows that have one of the values in a column."""
    import pyarrow.compute as pc

    matching = pc.is_in(table[column], value_set=pa.array(sorted(values), pa.string()))
    return table.filter(pc.invert(matching))


def of_attacks(metrics: pa.Table) -> pa.ChunkedArray:
    """Return for each row of the metrics whether it is about an attack."""
    import pyarrow.compute as pc

    return pc.equal(metrics["split"], "attack")
