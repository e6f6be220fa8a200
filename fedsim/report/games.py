"""The report of inference games: what each adversary got, beside what any could get."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.report.bits import lowest_shown, mark_below
from fedsim.report.figures import STYLE, WIDTH, Picture, svg
from fedsim.report.over_rounds import BLIND, COLOURS, GREY, MARKERS
from fedsim.report.page import write_page
from fedsim.report.select import numbers, select
from fedsim.report.strengths import against_strength

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
DASHES = {"static": (0, (4, 2)), "adaptive": "-"}
NAMES = {"auroc": "AUROC", "information": "information in bits"}
BESIDE = ("chosen", "defect", "task_accuracy", "promise")  # of a game, not of a metric
AXES = {"batch_size": "records per update", "rounds": "rounds", "setting": "setting"}


def write_games_report(rows: Sequence[Row], out: Path, *, configs: str) -> None:
    """Draw all games of a folder into one self-contained HTML file.

    Args:
        rows: The rows of `games.parquet`.
        out: The file.
        configs: What is not the default in them, as text.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib as mpl
    import pandas as pd

    table = pd.DataFrame(rows)
    with mpl.rc_context(STYLE):
        pictures = against_strength(table)
        axes = [axis for axis in AXES if axis != "setting" or not pictures]
        drawn = [_picture(table, axis) for axis in axes]
        pictures += [picture for picture in drawn if picture is not None]
    write_page(
        "games",
        out,
        title="Inference games",
        pictures=pictures,
        lines=wide(rows),
        configs=configs,
        settings=table["setting"].nunique(),
    )


def wide(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a line per game and adversary, with a row of the table under each metric's name."""
    keys = ("game", "setting", "batch_size", "rounds", "adversary")
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        line = lines.setdefault(key, {name: row[name] for name in (*keys, *BESIDE)})
        line[row["metric"]] = row
    return list(lines.values())


def _picture(table: "pd.DataFrame", along: str) -> Picture | None:
    """Draw a panel per game and metric along one axis; None if there is one place on it."""
    from matplotlib.figure import Figure

    table = select(table, metric=list(NAMES))
    places = list(table[along].unique())
    if len(places) < 2:
        return None
    rest = [name for name in AXES if name != along]
    lines = list(table[rest].drop_duplicates().itertuples(index=False, name=None))
    shown = lines[: len(COLOURS)]
    position = lambda place: places.index(place) if along == "setting" else float(place)
    table = table.assign(at=table[along].map(position))
    games = list(table["game"].unique())
    fig = Figure(figsize=(WIDTH, 2.5 * len(games) + 0.8), layout="constrained")
    axes = fig.subplots(len(games), 2, sharex=True, squeeze=False)
    for pair, game in zip(axes, games, strict=True):
        for axis, metric in zip(pair, NAMES, strict=True):
            panel = select(table, game=game, metric=metric)
            for place, line in enumerate(shown):
                rows = select(panel, **dict(zip(rest, line, strict=True)))
                _draw(axis, rows, place, joined=along != "setting")
            if metric == "information":
                most = float(numbers(panel, "ceiling").max())
                axis.set_ylim(lowest_shown(most), 1.05 * most)
            axis.set_title(f"{game}: {NAMES[metric]}", loc="left", fontsize=10, fontweight="bold")
    for axis in axes[-1]:
        _ticks(axis, along, places)
    _legend(fig, _labels(rest, shown, lines), sorted(table["adversary"].unique(), reverse=True))
    caption = (
        "The bands are 95 % intervals over trials. Grey is the lowest ceiling. Bits below 0 bound "
        "nothing, and a triangle stands for what lies below the axis."
    )
    if len(lines) > len(shown):
        caption += f" The table has {len(lines) - len(shown)} more lines."
    return Picture(f"Against {AXES[along]}", caption, svg(fig))


def _draw(axis: "Axes", rows: "pd.DataFrame", line: int, *, joined: bool) -> None:
    """Draw one line of a panel for each adversary, with the ceiling and the blind guess.

    Places that are no numbers are not joined.
    """
    import pandas as pd

    rows = rows.sort_values(by="at", kind="stable")
    for kind, dash in DASHES.items():
        points = select(rows, adversary=kind)
        if points.empty:
            continue
        # Without a defense there is nothing to adapt to, and the static adversary stands in.
        missing = rows.take(np.flatnonzero(~np.isin(rows["at"], points["at"])))
        points = pd.concat([points, missing]).sort_values(by="at", kind="stable")
        color, low, high = COLOURS[line], points["low"].astype(float), points["high"].astype(float)
        style = {"color": color, "marker": MARKERS[line], "linestyle": dash if joined else "none"}
        if not joined and kind == "static":
            style["markerfacecolor"] = "white"
        axis.plot(points["at"], points["value"], markersize=4, **style)
        if joined:
            axis.fill_between(points["at"], low, high, color=color, alpha=0.12, linewidth=0)
        else:
            axis.vlines(points["at"], low, high, color=color, alpha=0.3, linewidth=3)
        if rows["metric"].iloc[0] == "information":
            mark_below(
                axis,
                points["at"],
                points["value"],
                float(numbers(rows, "ceiling").max()),
                color,
                color,
            )
    if joined:
        axis.plot(rows["at"], rows["ceiling"], color=GREY, linewidth=1.5, zorder=1)
    else:
        axis.plot(rows["at"], rows["ceiling"], color=GREY, marker="_", linestyle="none", ms=14)
    axis.plot(rows["at"], rows["blind"], color=BLIND, linestyle=":", linewidth=1)


def _labels(rest: Sequence[str], shown: Sequence[tuple], lines: Sequence[tuple]) -> list[str]:
    """Return what the lines differ in, in words; nothing if there is one line."""
    differ = [i for i in range(len(rest)) if len({line[i] for line in lines}) > 1]
    return [", ".join(_words(rest[i], line[i]) for i in differ) for line in shown if differ]


def _legend(fig: "Figure", labels: Sequence[str], kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[place], marker=MARKERS[place], label=label)
        for place, label in enumerate(labels)
    ]
    handles += [Line2D([], [], color=BLIND, linestyle=DASHES[kind], label=kind) for kind in kinds]
    handles.append(Line2D([], [], color=GREY, label="ceiling"))
    handles.append(Line2D([], [], color=BLIND, linestyle=":", label="blind"))
    fig.legend(handles=handles, loc="outside upper center", ncols=4)


def _ticks(axis: "Axes", along: str, places: Sequence[Any]) -> None:
    axis.set_xlabel(AXES[along])
    if along == "setting":
        axis.set_xticks(range(len(places)), [str(p) for p in places], rotation=30, ha="right")
        return
    axis.set_xscale("log", base=2)
    axis.set_xticks([float(p) for p in places], [str(p) for p in places])
    axis.minorticks_off()


def _words(name: str, value: Any) -> str:
    return {"batch_size": f"batch {value}", "rounds": f"{value} rounds"}.get(name, str(value))
