"""The picture of defenses in games: scores, ceilings and accuracy against each one's strength."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.report.bits import lowest_shown, mark_below
from fedsim.report.figures import Picture, percent, svg
from fedsim.report.over_rounds import BLIND, COLOURS
from fedsim.report.select import numbers, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NONE = "none"
METRICS = {"auroc": "AUROC", "information": "bits"}
ADVERSARIES = {"static": {"ls": (0, (3, 2)), "mfc": "white"}, "adaptive": {"ls": "-"}}
SIDE = {"static": -0.2, "adaptive": 0.2}  # of the one place of a defense without a strength
SCORE, ACCURACY, UNDEFENDED = COLOURS[0], COLOURS[1], COLOURS[6]
LINES = {
    "records_ceiling": (COLOURS[2], "count ceiling"),
    "promised_ceiling": (COLOURS[3], "ceiling by μ or ε"),
    "imputation": (COLOURS[4], "imputation"),
}
WIDE = 10  # values between largest and smallest, from which an axis is logarithmic
COLUMN, ROW = 1.75, 1.75  # inches


def against_strength(table: "pd.DataFrame") -> list[Picture]:
    """Draw a picture for each batch size and number of rounds.

    None if no defense was played, or settings of a defense differ in more than its strength.

    Args:
        table: The rows of `games.parquet`.
    """
    table = select(table, metric=list(METRICS))
    key = ["defense", "strength", "game", "batch_size", "rounds", "adversary", "metric"]
    if set(table["defense"]) == {NONE} or table.duplicated(key).any():
        return []
    places = table[["batch_size", "rounds"]].drop_duplicates().itertuples(index=False, name=None)
    return [_picture(select(table, batch_size=b, rounds=r), b, r) for b, r in places]


def _picture(table: "pd.DataFrame", batch: int, rounds: int) -> Picture:
    from matplotlib.figure import Figure

    defenses = [name for name in table["defense"].unique() if name != NONE]
    panels = [(game, metric) for game in table["game"].unique() for metric in METRICS]
    size = COLUMN * len(defenses) + 0.9, ROW * (len(panels) + 1) + 0.6
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(len(panels) + 1, len(defenses), squeeze=False, sharex="col", sharey="row")
    for row, (game, metric) in zip(axes, panels, strict=False):
        rows = select(table, game=game, metric=metric)
        for axis, defense in zip(row, defenses, strict=True):
            _draw_scores(axis, rows, defense)
        _limit(row, rows, metric)
        row[0].set_ylabel(f"{game}\n{METRICS[metric]}", fontsize=9)
    for axis, defense in zip(axes[-1], defenses, strict=True):
        _draw_accuracy(axis, table, defense)
        _scale(axis, select(table, defense=defense))
    axes[-1][0].set_ylabel("task\naccuracy", fontsize=9)
    axes[-1][0].yaxis.set_major_formatter(percent)
    for axis, defense in zip(axes[0], defenses, strict=True):
        axis.set_title(defense, fontsize=10, fontweight="bold")
    _legend(fig, table, min(5, len(defenses)))
    many = f", {rounds} rounds" if rounds > 1 else ""
    return Picture(f"Defenses by strength, {batch} records{many}", CAPTION, svg(fig))


CAPTION = (
    "Each column is a defense. The axis is its strength. The bands are 95 % intervals over trials. "
    "The black line is the adversary of clients without a defense. No adversary exceeds the "
    "count ceiling (it reads the number of records with the property) or the ceiling by the "
    "defense’s μ or ε. Imputation reads the records without the secret column, and no upload. "
    "Bits above 0 are a lower bound of the mutual information. Below 0 they bound nothing, and a "
    "triangle stands for what lies below the axis. The lowest row is the accuracy of the model, "
    "which is trained under the defense."
)


def _draw_scores(axis: "Axes", rows: "pd.DataFrame", defense: str) -> None:
    """Draw what adversaries get under a defense, and what limits them."""
    of_defense = _at(select(rows, defense=defense))
    for adversary, style in ADVERSARIES.items():
        points = select(of_defense, adversary=adversary)
        if np.isnan(numbers(points, "strength")).all():  # beside each other
            points = points.assign(at=SIDE[adversary])
        _draw_line(axis, points, "value", {**style, "color": SCORE, "marker": "o", "ms": 4})
        if len(points) > 1:
            low, high = numbers(points, "low"), numbers(points, "high")
            axis.fill_between(points["at"], low, high, color=SCORE, alpha=0.12, lw=0)
        else:
            _draw_interval(axis, points)
        mark_below(axis, points["at"], points["value"], _most(rows), SCORE, style.get("mfc", SCORE))
    once = select(of_defense, adversary="static")
    for column, (color, _) in LINES.items():
        if np.isfinite(numbers(once, column)).any():
            _draw_line(axis, once, column, {"color": color, "lw": 1.5, "zorder": 1.5})
    axis.axhline(numbers(rows, "blind")[0], color=BLIND, ls=":", lw=1, zorder=1)
    for value in select(rows, defense=NONE, adversary="static")["value"]:
        axis.axhline(value, color=UNDEFENDED, lw=1, ls="-.", zorder=1)


def _draw_interval(axis: "Axes", points: "pd.DataFrame") -> None:
    for row in points.to_dict("records"):
        axis.vlines(row["at"], row["low"], row["high"], color=SCORE, alpha=0.3, lw=4)


def _draw_line(axis: "Axes", points: "pd.DataFrame", column: str, style: dict[str, Any]) -> None:
    """Draw values along a strength; across the panel where there is a single setting."""
    if len(points) == 1 and column != "value":
        axis.axhline(numbers(points, column)[0], **style)
    elif len(points):
        axis.plot(points["at"], numbers(points, column), **style)


def _draw_accuracy(axis: "Axes", table: "pd.DataFrame", defense: str) -> None:
    points = _at(select(table, defense=defense)).drop_duplicates("at")
    style = {"color": ACCURACY, "marker": "s", "ms": 4, "lw": 1.5}
    axis.plot(points["at"], numbers(points, "task_accuracy"), **style)
    for value in select(table, defense=NONE)["task_accuracy"].drop_duplicates():
        axis.axhline(value, color=UNDEFENDED, lw=1, ls="-.", zorder=1)


def _at(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return rows by rising strength; without a number there is one place."""
    placed = rows.assign(at=np.nan_to_num(numbers(rows, "strength")))
    return placed.sort_values("at", kind="stable")


def _most(rows: "pd.DataFrame") -> float | None:
    """Return the largest number of bits that a panel can have; None for other metrics."""
    bits = rows["metric"].iloc[0] == "information"
    return float(numbers(rows, "records_ceiling").max()) if bits else None


def _limit(row: Sequence["Axes"], rows: "pd.DataFrame", metric: str) -> None:
    values = rows[["value", *LINES]].astype(float).to_numpy()
    if metric == "information":
        most = _most(rows) or 1.0
        row[0].set_ylim(lowest_shown(most), 1.05 * most)
    else:
        row[0].set_ylim(min(0.45, np.nanmin(values) - 0.03), 1.02)


def _scale(axis: "Axes", rows: "pd.DataFrame") -> None:
    """Set ticks at the strengths played, on the axis that spreads them."""
    values = np.unique(numbers(rows, "strength"))
    values = values[~np.isnan(values)]
    if not len(values):
        axis.set(xticks=[], xlim=(-1, 1))
        return
    axis.set_xlabel(rows["option"].iloc[0])
    if values[0] > 0 and values[-1] < 1 and values[-1] > 1 - 1 / WIDE:
        axis.set_xscale("logit")
    elif values[0] > 0 and values[-1] >= WIDE * values[0]:
        axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values], fontsize=8)
    axis.minorticks_off()


def _legend(fig: "Figure", table: "pd.DataFrame", columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=SCORE, marker="o", ms=4, label=name, **style)
        for name, style in ADVERSARIES.items()
    ]
    if NONE in set(table["defense"]):
        handles.append(Line2D([], [], color=UNDEFENDED, ls="-.", lw=1, label="no defense"))
    handles += [
        Line2D([], [], color=color, lw=1.5, label=label)
        for column, (color, label) in LINES.items()
        if np.isfinite(numbers(table, column)).any()
    ]
    handles.append(Line2D([], [], color=BLIND, ls=":", lw=1, label="blind"))
    handles.append(Line2D([], [], color=ACCURACY, marker="s", ms=4, label="task accuracy"))
    fig.legend(handles=handles, loc="outside upper center", ncols=columns)
