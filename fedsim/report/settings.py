"""Leakage against each number that a comparison's runs differ in: epochs, rates, noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.report.data import RunData
from fedsim.report.differences import Settings, label_of, settings_of, varied
from fedsim.report.figures import WIDTH, Picture, fit, metric_name, percent, picture
from fedsim.report.intervals import LEVEL
from fedsim.report.over_rounds import COLOURED, COLOURS, MARKERS, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 20  # from this ratio of the largest value to the smallest on, a scale is logarithmic


@dataclass(frozen=True)
class Line:
    """One attack's main metric against one setting.

    Attributes:
        name: Of the attack, and of the other settings where they differ.
        metric: What is drawn.
        at: The setting's values, ascending.
        values: Means over rounds, clients and runs.
        blinds: The same of the blind guess.
        ends: Intervals over seeds; None of a value that has none.
    """

    name: str
    metric: str
    at: tuple[float, ...]
    values: tuple[float, ...]
    blinds: tuple[float, ...]
    ends: tuple[tuple[float, float] | None, ...]


def against_settings(runs: Sequence[RunData]) -> list[Picture]:
    """Draw a picture for every number that differs between runs, a panel per attacks' family."""
    settings = [settings_of(run.folder.config) for run in runs]
    pictures = []
    for key in varied(settings):
        having = [i for i, of in enumerate(settings) if _is_number(of.get(key))]
        of_these, theirs = [runs[i] for i in having], [settings[i] for i in having]
        others = [other for other in varied(theirs) if other != key] if having else []
        panels = {
            family: lines(of_these, theirs, key, others, family)
            for family in dict.fromkeys(family for run in of_these for family in run.families)
        }
        pictures += [_picture(key, {f: of for f, of in panels.items() if of}, others)]
    return [it for it in pictures if it is not None]


def lines(
    runs: Sequence[RunData],
    settings: Sequence[Settings],
    key: str,
    others: Sequence[str],
    family: str,
) -> list[Line]:
    """Return the lines of one family's attacks: the most skilful, as many as can be told apart.

    Where other settings differ too, each combination of them has a line of its own, or all
    together have one if there are too many.
    """
    groups: dict[str, list[int]] = {}
    for place, of in enumerate(settings):
        groups.setdefault(label_of(of, others), []).append(place)
    most = max(1, COLOURED // len(groups))
    if len(groups) > COLOURED:
        groups, most = {"": list(range(len(runs)))}, COLOURED
    skills: dict[str, list[float]] = {}
    for run in runs:
        for curve in run.leaders(family):
            skills.setdefault(curve.title, []).append(curve.skill)
    names = sorted(skills, key=lambda name: -float(np.mean(skills[name])))[:most]
    drawn = []
    for name in names:
        for words, places in groups.items():
            points = [(float(settings[i][key]), runs[i]) for i in places]
            label = words if len(names) == 1 and words else ", ".join(filter(None, [name, words]))
            drawn += _line(label, name, points)
    return drawn


def _line(label: str, attack: str, runs: Sequence[tuple[float, RunData]]) -> list[Line]:
    """Return one attack's line over runs at values of the setting; none of a single value."""
    points: dict[float, list[tuple[float, float]]] = {}
    ends: dict[float, tuple[float, float] | None] = {}
    metric = ""
    for at, run in runs:
        for curve in (curve for curve in run.curves if curve.title == attack):
            metric = curve.metric
            ends[at] = None if at in points else run.interval(curve)
            points.setdefault(at, []).append((curve.main.value, curve.main.blind_value))
    if len(points) < 2:
        return []
    ascending = tuple(sorted(points))
    means = np.array([np.mean(points[x], axis=0) for x in ascending])
    intervals = tuple(ends[x] for x in ascending)
    return [Line(label, metric, ascending, tuple(means[:, 0]), tuple(means[:, 1]), intervals)]


def _picture(
    key: str, panels: Mapping[str, Sequence[Line]], others: Sequence[str]
) -> Picture | None:
    if not panels:
        return None
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 2.7 * len(panels) + 0.5), layout="constrained")
    axes = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (family, drawn) in zip(axes, panels.items(), strict=True):
        _draw(axis, drawn)
        several = f"{family}: " if len(panels) > 1 else ""
        axis.set_ylabel(several + metric_name(drawn[0].metric))
    at = sorted({x for drawn in panels.values() for line in drawn for x in line.at})
    if at[0] > 0 and at[-1] >= DECADES * at[0]:
        axes[-1].set_xscale("log")
        axes[-1].xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes[-1].minorticks_off()
    if len(at) <= 8:
        axes[-1].set_xticks(at, [f"{x:g}" for x in at])
    axes[-1].set_xlabel(key)
    caption = (
        "The lines are means over rounds and clients, for the attacks with the highest skill. "
        f"The runs differ in {key}. The dashed lines are the blind guess."
    )
    if any(end for drawn in panels.values() for line in drawn for end in line.ends):
        caption += f" The bars are {100 * LEVEL:.0f} % intervals of the mean over seeds."
    if others:
        caption += f" The runs also differ in {', '.join(others)}."
    return picture(f"Leakage against {key}", caption, fig)


def _draw(axis: "Axes", drawn: Sequence[Line]) -> None:
    axis.set_ylim(0, 1.02)
    axis.yaxis.set_major_formatter(percent)
    for place, line in enumerate(drawn):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        style = {"color": colour, "marker": marker, "markersize": 4}
        axis.plot(line.at, line.values, **style, label=fill(short(line.name, 90), 30))
        for at, ends in zip(line.at, line.ends, strict=True):
            if ends is not None:
                axis.plot([at, at], ends, color=colour, lw=1, label=f"_{line.name}, interval")
        blind = {"color": colour, "linewidth": 0.9, "label": f"_{line.name}, blind guess"}
        axis.plot(line.at, line.blinds, "--", **blind)
    fit(axis, drawn[0].metric)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
