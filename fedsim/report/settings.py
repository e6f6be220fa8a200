"""Leakage against each number that a comparison's runs differ in: epochs, rates, noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.config import Config
from fedsim.report.data import RunData, metric_name
from fedsim.report.figures import WIDTH, Picture, fit, percent, picture
from fedsim.report.over_rounds import COLOURED, COLOURS, MARKERS, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = (
    "seed",
    "attack",
    "versions",
    "engine",
    "record",
    "game",
    "audit",
    "check",
    "foreign",
    "track",
)  # in which runs may differ unseen
DECADES = 20  # from this ratio of the largest value to the smallest on, a scale is logarithmic

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One attack's main metric against one setting.

    Attributes:
        name: Of the attack, and of the other settings where they differ.
        metric: What is drawn.
        at: The setting's values, ascending.
        values: Means over rounds, clients and runs.
        blinds: The same of the blind guess.
    """

    name: str
    metric: str
    at: tuple[float, ...]
    values: tuple[float, ...]
    blinds: tuple[float, ...]


def against_settings(runs: Sequence[RunData]) -> list[Picture]:
    """Draw a picture for every number that differs between runs, a panel per attacks' family."""
    settings = [settings_of(run.folder.config) for run in runs]
    differ = varied(settings)
    pictures = []
    for key in differ:
        if all(_is_number(of.get(key)) for of in settings):
            others = [other for other in differ if other != key]
            panels = {
                family: lines(runs, settings, key, others, family)
                for family in dict.fromkeys(family for run in runs for family in run.families)
            }
            pictures += [_picture(key, {f: of for f, of in panels.items() if of}, others)]
    return [picture for picture in pictures if picture is not None]


def settings_of(config: Config) -> dict[str, Any]:
    """Return a config's settings by `section.key`, a defense's by its name."""
    settings: dict[str, Any] = {
        "defense": " → ".join(part.name for part in config.defense) or "none"
    }
    for part in config.defense:
        settings |= {f"{part.name}.{option}": value for option, value in part.options.items()}
    for section, of in config.model_dump(exclude={*APART, "defense"}).items():
        if isinstance(of, dict):
            settings |= {f"{section}.{key}": value for key, value in of.items()}
    return settings


def varied(settings: Sequence[Settings]) -> list[str]:
    """Return the keys in which settings differ, in order."""
    keys = dict.fromkeys(key for of in settings for key in of)
    return [key for key in keys if any(of.get(key) != settings[0].get(key) for of in settings)]


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
        words = ", ".join(f"{other.rpartition('.')[2]} {of.get(other)}" for other in others)
        groups.setdefault(words, []).append(place)
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
    metric = ""
    for at, run in runs:
        for curve in (curve for curve in run.curves if curve.title == attack):
            metric = curve.metric
            points.setdefault(at, []).append((curve.main.value, curve.main.blind_value))
    if len(points) < 2:
        return []
    ascending = tuple(sorted(points))
    means = np.array([np.mean(points[x], axis=0) for x in ascending])
    return [Line(label, metric, ascending, tuple(means[:, 0]), tuple(means[:, 1]))]


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
    elif len(at) <= 8:
        axes[-1].set_xticks(at, [f"{x:g}" for x in at])
    axes[-1].set_xlabel(key)
    caption = (
        "The lines are means over rounds and clients, for the attacks with the highest skill. "
        f"The runs differ in {key}. The dashed lines are the blind guess."
    )
    if others:
        caption += f" The runs also differ in {', '.join(others)}."
    return picture(f"Leakage against {key}", caption, fig)


def _draw(axis: "Axes", drawn: Sequence[Line]) -> None:
    axis.set_ylim(0, 1.02)
    axis.yaxis.set_major_formatter(percent)
    for place, line in enumerate(drawn):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axis.plot(
            line.at, line.values, color=colour, marker=marker, markersize=4, label=short(line.name)
        )
        axis.plot(
            line.at,
            line.blinds,
            "--",
            color=colour,
            linewidth=0.9,
            label=f"_{line.name}, blind guess",
        )
    fit(axis, drawn[0].metric)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
