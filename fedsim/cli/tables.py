"""What the command line prints of attacks and audits once they are done."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedsim.core.units import name_of, title_of, written

if TYPE_CHECKING:
    from rich.console import Console


def print_attacks(means: Sequence[Mapping[str, Any]], console: "Console") -> None:
    """Print the means of `api.means`: a table per family, with a row per attack, by skill.

    Where means are not over all updates, a column says over how many they are.
    """
    from adversary.grading.families import FAMILIES

    attacks: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in means:
        title = title_of(row["attack"], adaptive=row["adaptive"])
        attacks.setdefault(title, {})[row["metric"]] = row
    tables: dict[tuple[str, ...], list[str]] = {}
    for name, rows in attacks.items():
        orders = (
            # What some data alone define comes in place of the rest: a console is narrow.
            tuple(m for m in family.optional if m in rows)
            or tuple(m for m in family.ranked if m in rows and m not in family.secondary)
            for family in FAMILIES.values()
            if {*family.metrics, *family.pooled} <= {*rows} <= {*family.ranked}
        )
        tables.setdefault(next(orders, tuple(sorted(rows))), []).append(name)
    for metrics, names in tables.items():
        by = "skill" if "skill" in metrics else metrics[0]
        value = {name: attacks[name][by]["value"] for name in names}
        names.sort(key=lambda name: -value[name] if value[name] is not None else float("inf"))
        console.print(_table(metrics, {name: attacks[name] for name in names}))


def audit_line(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the largest bound of the last audit beside what theory claims; None without any."""
    bounds = [row for row in rows if row["metric"] == "epsilon_lower" and row["value"] is not None]
    if not bounds:
        return None
    best = max(bounds, key=lambda row: row["value"])
    return (
        f"ε ≥ {best['value']:.3g} by {best['attack']} until round {best['round']}, where theory "
        f"claims at most {best['theory']:.3g}"
    )


def _table(metrics: Sequence[str], attacks: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("attack")
    heads = [name_of(metric) for metric in metrics]
    for head in (heads[0], "blind", *heads[1:], "ms"):
        table.add_column(head, justify="right", no_wrap=True)
    partly = any(_is_partial(rows[metrics[0]]) for rows in attacks.values())
    if partly:
        table.add_column("mean of", justify="right", no_wrap=True)
    for name, rows in attacks.items():
        values = [_mean_text(metric, rows[metric]) for metric in metrics]
        first = rows[metrics[0]]
        blind, spent = written(metrics[0], first["blind"]), f"{first['ms']:.2f}"
        part = [f"{first['graded']}/{first['of']}"] if partly else []
        table.add_row(name, values[0], blind, *values[1:], spent, *part)
    return table


def _is_partial(row: Mapping[str, Any]) -> bool:
    """Return whether a mean is over some updates only, or there is none because of failures."""
    missing = row["failed"] + row["refused"]
    return missing > 0 or 0 < row["graded"] < row["of"]


def _mean_text(metric: str, row: Mapping[str, Any]) -> str:
    if row["failed"] + row["refused"] == row["of"]:
        return "failed" if row["failed"] else "refused"
    return written(metric, row["value"])
