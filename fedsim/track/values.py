"""What a tracker is given of a round: one number by name."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections import defaultdict

import pyarrow as pa

from fedsim.core.units import title_of
from fedsim.run.ledger import LEAKAGE, LEDGER, MEASURES, METRICS, over_clients, read_rows
from fedsim.run.outcomes import answers_of
from fedsim.run.run_folder import RunFolder

NOTES = "attack"  # the split of what attacks say about their answers
COUNTED = "failed"


def values_of(folder: RunFolder, round_: int) -> dict[str, float]:
    """Return the metrics of a finished round.

    `ATTACK/METRIC` and `ATTACK/METRIC.blind` are means over the clients that were graded;
    `ATTACK/unanswered` is on how many updates it failed or which it refused, if there are any;
    `SPLIT/METRIC` is a measure, such as `test/accuracy`; `client/METRIC` is a mean over clients,
    and `client/failed` their number.
    """
    state = folder.state_of(round_)
    ledger = read_rows(state / LEDGER, LEAKAGE)
    return {**_leakage(ledger), **_measures(read_rows(state / MEASURES, METRICS))}


def _leakage(ledger: pa.Table) -> dict[str, float]:
    import pyarrow.compute as pc

    sums: dict[str, list[float]] = defaultdict(list)
    for row in over_clients(ledger.filter(pc.is_valid(ledger["value"]))).to_pylist():
        name = f"{title_of(row['attack'], adaptive=row['adaptive'])}/{row['metric']}"
        sums[name].append(row["value"])
        sums[f"{name}.blind"] += [] if row["blind"] is None else [row["blind"]]
    unanswered = {
        f"{each.title}/unanswered": float(each.failed + each.refused)
        for each in answers_of(ledger)
        if each.counts
    }
    return {name: sum(of) / len(of) for name, of in sums.items() if of} | unanswered


def _measures(metrics: pa.Table) -> dict[str, float]:
    rows: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for row in metrics.to_pylist():
        if row["split"] != NOTES and row["value"] is not None:
            name = f"{row['split']}/{row['metric']}"
            rows[name, row["client"] is not None and row["metric"] != COUNTED].append(row["value"])
    return {name: sum(of) / (len(of) if mean else 1) for (name, mean), of in rows.items()}
