import pyarrow as pa
import pytest

from fedsim import api
from fedsim.core.errors import BadRecording
from fedsim.core.rows import Leak, Measure
from fedsim.core.tables import read_table, write_table
from fedsim.federation.progress import summary
from fedsim.report.curves import curve_of
from fedsim.run.ledger import (
    LEAKAGE,
    METRICS,
    leakage_table,
    over_clients,
)


def leak(client, value, *, attack="a", metric="auroc", round_=1, adaptive=False, **others):
    return Leak(
        round=round_,
        client=client,
        attack=attack,
        family="membership",
        metric=metric,
        value=value,
        **{"outcome": "graded", "blind": 0.5, **others},
        seconds=0.1,
        ceiling=1.0,
        adaptive=adaptive,
    )


ROWS = [
    leak("0", 0.6), leak("1", 0.8), leak(None, 0.1),  # pooled beside the clients it is pooled over
    leak(None, 0.9, metric="accuracy"),  # pooled alone
    leak(None, 0.3, attack="b"), leak(None, 0.5, attack="b", round_=2),
]  # fmt: skip


def test_a_mean_counts_no_client_twice():
    kept = over_clients(leakage_table(ROWS)).to_pylist()
    assert [row["value"] for row in kept] == [0.6, 0.8, 0.9, 0.3, 0.5]
    means = {(row["attack"], row["metric"]): row["value"] for row in api.means(leakage_table(ROWS))}
    assert means == pytest.approx(
        {("a", "auroc"): 0.7, ("a", "accuracy"): 0.9, ("b", "auroc"): 0.4}
    )
    assert over_clients(LEAKAGE.empty_table()).num_rows == 0


def test_names_that_run_together_are_told_apart():
    rows = [leak("0", 0.6, attack="ab", metric="c"), leak(None, 0.9, attack="a", metric="bc")]
    assert over_clients(leakage_table(rows)).num_rows == 2


def test_a_reports_curve_counts_no_client_twice():
    curve = curve_of(leakage_table(ROWS[:4]))
    assert curve.main.value == pytest.approx(0.7)
    assert curve.means == pytest.approx({"auroc": 0.7, "accuracy": 0.9})


def test_the_line_of_a_round_counts_no_client_twice():
    told = summary(1, [Measure(1, "test", "accuracy", 0.5)], ROWS[:4], [], 0.0)
    assert told.leakage["a"] == pytest.approx((0.7, 0.5))
    assert summary(1, [], ROWS[4:5], [], 0.0).leakage["b"] == pytest.approx((0.3, 0.5))


def test_who_knows_the_defense_is_another_attacker_with_means_and_a_line_of_its_own():
    rows = [leak("0", 0.6), leak("0", 0.9, adaptive=True), leak(None, 0.1, adaptive=True)]
    table = leakage_table(rows)
    assert over_clients(table)["value"].to_pylist() == [0.6, 0.9]
    means = {(row["attack"], row["adaptive"]): row["value"] for row in api.means(table)}
    assert means == {("a", False): 0.6, ("a", True): 0.9}
    leakage = summary(1, [], rows, [], 0.0).leakage
    assert {title: mean for title, (mean, _) in leakage.items()} == {"a": 0.6, "a (adaptive)": 0.9}


@pytest.mark.parametrize("column", ["value", "ceiling", "adaptive", "outcome", "reason"])
def test_a_ledger_without_one_of_its_columns_is_refused(tmp_path, column):
    path = tmp_path / "leakage.parquet"
    write_table(path, leakage_table(ROWS).drop_columns([column]))
    with pytest.raises(BadRecording, match="columns must have"):
        read_table(path, LEAKAGE)


def test_metrics_have_no_ceiling(tmp_path):
    path = tmp_path / "metrics.parquet"
    write_table(path, METRICS.empty_table().append_column("ceiling", pa.array([], pa.float64())))
    with pytest.raises(BadRecording, match="got round int32, .*, ceiling double"):
        read_table(path, METRICS)
