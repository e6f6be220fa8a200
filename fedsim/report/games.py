"""The report of inference games: what each adversary got, beside what any could get."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.report.figures import STYLE, WIDTH, Picture, svg
from fedsim.report.over_rounds import BLIND, COLOURS, GREY, MARKERS
from fedsim.report.page import write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
DASHES = {"static": (0, (4, 2)), "adaptive": "-"}
NAMES = {"auroc": "AUROC", "information": "information in bits"}
AXES = {"batch_size": "records per update", "rounds": "rounds", "setting": "setting"}


def write_games_report(rows: Sequence[Row], out: Path, *, configs: str) -> None:
    """Draw all games of a folder into one self-contained HTML file.

    Args:
        rows: Of `games.parquet`.
        out: The file.
        configs: The text of the configs, as played.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        pictures = [picture for axis in AXES if (picture := _picture(rows, axis)) is not None]
    write_page(
        "games",
        out,
        title="Inference games",
        pictures=pictures,
        lines=wide(rows),
        configs=configs,
        settings=len({row["setting"] for row in rows}),
    )


def wide(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a line per game and adversary, with a row of the table under each metric's name."""
    keys = ("game", "setting", "batch_size", "rounds", "adversary")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        line = found.setdefault(key, {name: row[name] for name in (*keys, "chosen")})
        line[row["metric"]] = row
    return list(found.values())


def _picture(rows: Sequence[Row], along: str) -> Picture | None:
    """Draw a panel per game and metric along one axis, where there is more than one place on it."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["metric"] in NAMES]
    places = list(dict.fromkeys(row[along] for row in rows))
    if len(places) < 2:
        return None
    games = list(dict.fromkeys(row["game"] for row in rows))
    rest = [name for name in AXES if name != along]
    lines = list(dict.fromkeys(tuple(row[name] for name in rest) for row in rows))
    if along == "setting" and len(places) == len(lines) == 1:
        return None
    fig = Figure(figsize=(WIDTH, 2.5 * len(games) + 0.8), layout="constrained")
    axes = fig.subplots(len(games), 2, sharex=True, squeeze=False)
    several = [i for i, name in enumerate(rest) if len({line[i] for line in lines}) > 1]
    label = lambda line: ", ".join(_said(rest[i], line[i]) for i in several)
    shown = lines[: len(COLOURS)]
    for pair, game in zip(axes, games, strict=True):
        for axis, metric in zip(pair, NAMES, strict=True):
            for place, line in enumerate(shown):
                own = [row for row in rows if row["game"] == game and row["metric"] == metric
                       and tuple(row[name] for name in rest) == line]  # fmt: skip
                _draw(axis, own, along, places, place)
            axis.set_title(f"{game}: {NAMES[metric]}", loc="left", fontsize=10, fontweight="bold")
    for axis in axes[-1]:
        _ticks(axis, along, places)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=COLOURS[i], marker=MARKERS[i], label=label(line))
               for i, line in enumerate(shown) if several]  # fmt: skip
    kinds = sorted({row["adversary"] for row in rows}, reverse=True)
    handles += [Line2D([], [], color=BLIND, linestyle=DASHES[kind], label=kind) for kind in kinds]
    handles += [Line2D([], [], color=GREY, label="ceiling"),
                Line2D([], [], color=BLIND, linestyle=":", label="blind")]  # fmt: skip
    fig.legend(handles=handles, loc="outside upper center", ncols=4)
    caption = "Bands: 95 % intervals over trials. Grey: the closed-form ceiling."
    if len(lines) > len(shown):
        caption += f" {len(lines) - len(shown)} more lines are in the table only."
    return Picture(f"Against {AXES[along]}", caption, svg(fig))


def _draw(axis: "Axes", rows: Sequence[Row], along: str, places: Sequence[Any], line: int) -> None:
    at: Callable[[Row], float] = lambda row: (
        places.index(row[along]) if along == "setting" else float(row[along])
    )
    rows = sorted(rows, key=at)
    for kind, dash in DASHES.items():
        own = [row for row in rows if row["adversary"] == kind]
        if not own:
            continue
        told = {at(row) for row in own}  # without a defense there is nothing to adapt to
        own = sorted([*own, *(row for row in rows if at(row) not in told)], key=at)
        x = [at(row) for row in own]
        axis.plot(x, [row["value"] for row in own], color=COLOURS[line], marker=MARKERS[line],
                  markersize=4, linestyle=dash)  # fmt: skip
        low, high = ([math.nan if row[name] is None else row[name] for row in own]
                     for name in ("low", "high"))  # fmt: skip
        axis.fill_between(x, low, high, color=COLOURS[line], alpha=0.12, linewidth=0)
    x = [at(row) for row in rows]
    axis.plot(x, [row["ceiling"] for row in rows], color=GREY, linewidth=1.5, zorder=1)
    axis.plot(x, [row["blind"] for row in rows], color=BLIND, linestyle=":", linewidth=1)


def _ticks(axis: "Axes", along: str, places: Sequence[Any]) -> None:
    axis.set_xlabel(AXES[along])
    if along == "setting":
        axis.set_xticks(range(len(places)), [str(p) for p in places], rotation=30, ha="right")
        return
    axis.set_xscale("log", base=2)
    axis.set_xticks([float(p) for p in places], [str(p) for p in places])
    axis.minorticks_off()


def _said(name: str, value: Any) -> str:
    return {"batch_size": f"batch {value}", "rounds": f"{value} rounds"}.get(name, str(value))
