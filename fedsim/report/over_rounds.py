"""The report's pictures over rounds: one run, and several side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedsim.report.curves import Curve, Series
from fedsim.report.data import RunData
from fedsim.report.figures import (
    Picture,
    fit,
    metric_name,
    panels,
    picture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart without colour vision, and by their markers in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"
COLOURED, BANDS = 6, 3
GREY = "#b5b5b5"
BLIND = "#555555"


def over_rounds(run: RunData) -> Picture:
    """Draw each family's main metric, its skill where it has one, and the model's accuracy."""
    drawn: list[tuple[str, bool]] = []
    for family in run.families:
        drawn.append((family, False))
        if any(curve.skills for curve in run.leaders(family)):
            drawn.append((family, True))
    fig, axes = panels([2.3 if skill else 2.7 for _, skill in drawn] + [1.6])
    for axis, (family, skill) in zip(axes, drawn, strict=False):
        _draw_family(axis, run, family, skill=skill)
    _draw_accuracy(axes[-1], [run])
    caption = _caption(run, skill=any(skill for _, skill in drawn))
    title = "Leakage and accuracy" if run.curves else "Accuracy"
    return picture(f"{title} over training", caption, fig, live=True)


def side_by_side(runs: Sequence[RunData]) -> Picture:
    """Draw a panel per attack with a line per run, and the runs' accuracy."""
    names, left_out = _compared(runs)
    fig, axes = panels([2.2] * len(names) + [1.8])
    for axis, name in zip(axes, names, strict=False):
        for place, run in enumerate(runs):
            for curve in (curve for curve in run.curves if curve.title == name):
                band = run.band if len(runs) <= BANDS else ""
                _draw(axis, curve.main, place, short(run.label), band=band)
                _draw_blind(axis, curve.main, COLOURS[place % len(COLOURS)])
                axis.set_ylabel(metric_name(curve.metric))
                fit(axis, curve.metric)
        axis.set_title(name, loc="left", fontsize=10, fontweight="bold")
    _draw_accuracy(axes[-1], runs)
    _legend_above(fig, axes[-1], [short(run.label) for run in runs])
    caption = (
        "Each panel is an attack. Each colour is a run. The dashed line is the run's blind guess. "
        "The lowest panel shows test accuracy, because protection can cost accuracy."
    )
    if len(runs) <= BANDS:
        bands = dict.fromkeys(run.band for run in runs)
        caption += f" The bands are {' or '.join(bands)}."
    if left_out:
        caption += (
            f" Only the {len(names)} attacks with the highest mean skill over the runs are shown. "
            f"The table below also has the other {left_out}."
        )
    return picture("Runs compared", caption, fig, live=True)


def _caption(run: RunData, *, skill: bool) -> str:
    """Say what is drawn over rounds, and what is left grey."""
    if not run.curves:
        return f"The model's test accuracy. {run.why_ungraded}"
    most = max(len(run.leaders(family)) for family in run.families)
    whose = f" of the best {BANDS} attacks" if most > BANDS else ""
    parts = [
        f"The lines are means over clients. The bands{whose} are {run.band}. "
        "The legend is in the order of mean skill."
    ]
    if most > COLOURED:
        parts.append(
            f"The {COLOURED} attacks with the highest skill are coloured. The others are grey. The "
            "table below has all attacks."
        )
    if any(curve.baseline for curve in run.curves):
        parts.append("Dotted lines are baselines, which do not use updates.")
    parts.append(
        "The dashed line is the best guess without any update. Only values above it are leakage."
    )
    if skill:
        parts.append(
            "Skill is the same recovery on another scale: uniform random labels have 0, and full "
            "knowledge has 1."
        )
    if any(each.counts for each in run.answers.values()):
        parts.append("Means leave out the updates that an attack did not answer.")
    parts.append("The lowest panel shows the model's test accuracy in the same rounds.")
    return " ".join(parts)


def _draw_family(axis: "Axes", run: RunData, family: str, *, skill: bool) -> None:
    """Draw one family: leaders in colour over the others in grey, and the blind guess."""
    curves = [curve for curve in run.curves if curve.family == family]
    coloured = run.leaders(family)[:COLOURED]
    for curve in (curve for curve in curves if curve not in coloured):
        if series := curve.skills if skill else curve.main:
            style = ":" if curve.baseline else "-"
            axis.plot(
                series.rounds,
                series.mean,
                style,
                marker=_dot(series),
                color=GREY,
                lw=0.9,
                label=f"_{curve.title}",
            )
    lowest = 0.0
    for place, curve in enumerate(coloured):
        if series := curve.skills if skill else curve.main:
            _draw(axis, series, place, curve.title, band=run.band if place < BANDS else "")
            lowest = min(lowest, float(series.mean.min()))
    widest = max(curves, key=lambda curve: len(curve.main.rounds))
    if series := widest.skills if skill else widest.main:
        _draw_blind(axis, series)
    if skill:
        _skill_axis(axis, lowest)
    else:
        several = f"{family}: " if len(run.families) > 1 else ""
        axis.set_ylabel(several + metric_name(coloured[0].metric))
        fit(axis, coloured[0].metric)
        _legend_beside(axis, curves, coloured)


def _skill_axis(axis: "Axes", lowest: float) -> None:
    """Let the panel reach below chance, and say where chance is."""
    axis.axhline(0, color="#222222", linewidth=1, zorder=1.5)
    axis.set_ylim(max(-1.0, lowest - 0.05) - 0.05, 1.02)
    ticks = [tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= axis.get_ylim()[0]]
    axis.set_yticks(ticks, ["chance  0" if tick == 0 else f"{tick:g}" for tick in ticks])
    axis.set_ylabel("skill")


def _draw(axis: "Axes", series: Series, place: int, label: str, *, band: str) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    if band:
        axis.fill_between(
            series.rounds,
            series.low,
            series.high,
            color=colour,
            alpha=0.1,
            linewidth=0,
            label=f"_{label}, {band}",
        )
    marker = marker if len(series.rounds) <= 40 else ""
    axis.plot(
        series.rounds,
        series.mean,
        marker=marker,
        markersize=3.5,
        color=colour,
        label=label,
        linestyle=_line(place),
    )


def _draw_blind(axis: "Axes", series: Series, colour: str = BLIND) -> None:
    axis.plot(
        series.rounds,
        series.blind,
        "--",
        marker=_dot(series, "_"),
        color=colour,
        lw=1,
        label="_blind guess",
    )


def _draw_accuracy(axis: "Axes", runs: Sequence[RunData]) -> None:
    for place, run in enumerate(runs):
        colour = "#333333" if len(runs) == 1 else COLOURS[place % len(COLOURS)]
        marker = _dot(run.accuracy[0])
        axis.plot(
            *run.accuracy,
            color=colour,
            linestyle=_line(place),
            marker=marker,
            label=short(run.label),
        )
    axis.set_ylabel("test accuracy")


def _legend_beside(axis: "Axes", curves: Sequence[Curve], coloured: Sequence[Curve]) -> None:
    """Name the coloured attacks, in order of skill, and say what is grey and dashed."""
    from matplotlib.lines import Line2D

    handles, labels = axis.get_legend_handles_labels()
    rest = [curve for curve in curves if curve not in coloured]
    baselines = [curve.title for curve in rest if curve.baseline]
    others = len(rest) - len(baselines)
    if others:
        handles.append(Line2D([], [], color=GREY, lw=0.9))
        labels.append(f"{others} other{'s' * (others > 1)}")
    if baselines:
        handles.append(Line2D([], [], color=GREY, lw=0.9, ls=":"))
        labels.append(f"baseline{'s' * (len(baselines) > 1)}")
    handles.append(Line2D([], [], color=BLIND, lw=1, ls="--"))
    axis.legend(
        handles, [*map(short, labels), "blind guess"], loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )


def _legend_above(fig: "Figure", axis: "Axes", names: Sequence[str]) -> None:
    columns = max(1, min(len(names), 95 // (max(map(len, names)) + 7)))
    fig.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=columns)


def _compared(runs: Sequence[RunData]) -> tuple[list[str], int]:
    """Return the attacks with the highest mean skill over the runs, and how many more there are."""
    skills: dict[str, list[float]] = {}
    for run in runs:
        for curve in run.leaders():
            skills.setdefault(curve.title, []).append(curve.skill)
    names = sorted(skills, key=lambda name: -float(np.mean(skills[name])))[:COLOURED]
    titles = {curve.title for run in runs for curve in run.curves}
    return names, len(titles) - len(names)


def _line(place: int) -> str:
    """Return a line style that tells colours apart where they start again."""
    return ("-", "-.", ":")[place // len(COLOURS) % 3]


def _dot(points: "Series | np.ndarray", marker: str = ".") -> str:
    """Return a marker where a line would have no length."""
    rounds = points.rounds if isinstance(points, Series) else points
    return marker if len(rounds) == 1 else ""


def short(name: str, most: int = 36) -> str:
    """Return a name that fits a legend (or an axis): the middle of a long one is left out."""
    head = most // 2 - 2
    return name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}"
