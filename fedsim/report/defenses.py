"""What defenses promise, cost and leave: a table, and leakage against accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import defenses
from defenses import Promise
from fedsim.core.errors import ConfigError
from fedsim.core.tables import frame
from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.facts import part_text
from fedsim.report.figures import Picture, fit, metric_name, panels_of, picture
from fedsim.report.over_rounds import COLOURS, MARKERS, short
from fedsim.report.select import select
from fedsim.report.words import listed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LETTER, LINE = 4.2, 8.5  # points that a letter and a line of a name take
NAMED = 12  # points that are named in a picture; beyond it only the best


@dataclass(frozen=True)
class Left:
    """What the strongest attacker of a family gets in spite of a defense.

    Attributes:
        static: Best attack that knows nothing of the defense; None without an answer of any.
        adaptive: Best attack that knows it; None without an answer of any.
        words: What stands in place of each: failed, refused, or a dash if no such attack was run.
    """

    family: str
    static: Curve | None
    adaptive: Curve | None
    words: tuple[str, str]

    @property
    def worst(self) -> Curve | None:
        """The stronger of the two: a defense is worth what it is against the best attacker."""
        return _best([curve for curve in (self.static, self.adaptive) if curve is not None])


class Defended:
    """One run, as its defense shows it."""

    def __init__(self, run: RunData) -> None:
        self.run = run
        self.name = " → ".join(map(part_text, run.folder.config.defense)) or "none"
        self.kind = " → ".join(part.name for part in run.folder.config.defense) or "none"

    @cached_property
    def promise(self) -> Promise | None:
        """What the chain of defenses guarantees; None of a user's own, which is not imported."""
        try:
            return defenses.build(self.run.folder.config.defense).promise
        except ConfigError:
            return None

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """The run's metrics."""
        return frame(self.run.metrics)

    @cached_property
    def epsilon(self) -> float | None:
        """The largest client's ε after the last round; None without a formal promise."""
        return _number(select(self.metrics, metric="epsilon")["value"].max())

    @cached_property
    def accuracy(self) -> float | None:
        """The model's last test accuracy."""
        values = self.run.accuracy[1]
        return float(values[-1]) if len(values) else None

    def mean(self, metric: str) -> float | None:
        """Return the mean of one of the defense's costs over clients and rounds."""
        return _number(select(self.metrics, split="defense", metric=metric)["value"].mean())

    @cached_property
    def kilobytes(self) -> float | None:
        """Size of an upload's shortest plain encoding, in units of 1,000 bytes."""
        size = self.mean("upload_bytes")
        return None if size is None else size / 1000

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of training a round, the defense included."""
        return _number(select(self.metrics, metric="train_seconds")["value"].mean())

    @cached_property
    def left(self) -> list[Left]:
        """What attackers get, family by family; those that no attack answered stand last."""
        curves = [curve for curve in self.run.curves if not curve.baseline]
        families = [curve.family for curve in curves]
        return [
            Left(
                family,
                _best([c for c in curves if c.family == family and not c.adaptive]),
                _best([c for c in curves if c.family == family and c.adaptive]),
                (self._word(family, adaptive=False), self._word(family, adaptive=True)),
            )
            for family in dict.fromkeys([*families, *self.run.silent])
        ]

    @property
    def measured(self) -> list[tuple[str, Curve]]:
        """The families that an attack answered, each with the strongest attacker."""
        return [(left.family, worst) for left in self.left if (worst := left.worst) is not None]

    def _word(self, family: str, *, adaptive: bool) -> str:
        """Return why an attacker has no value."""
        words = {
            each.word
            for each in self.run.unanswered
            if (each.family, each.adaptive, each.baseline) == (family, adaptive, False)
        }
        return next((word for word in ("failed", "refused") if word in words), "–")


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other beats: (accuracy, leakage), more of one and less of two.

    Returns:
        Their places, by rising accuracy; of equal points the first.
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i))
    unbeaten, lowest = [], float("inf")
    for place in order:
        if points[place][1] < lowest:
            unbeaten.append(place)
            lowest = points[place][1]
    return unbeaten[::-1]


def trade_off(rows: Sequence[Defended]) -> Picture | None:
    """Draw the strongest attacker's leakage against the model's accuracy, a point per run."""
    every, rows = rows, [row for row in rows if row.accuracy is not None and row.measured]
    families = list(dict.fromkeys(family for row in rows for family, _ in row.measured))
    if len(rows) < 2:
        return None
    fig, axes = panels_of(len(families))
    kinds = list(dict.fromkeys(row.kind for row in rows))
    for axis, family in zip(axes, families, strict=True):
        pairs = [(row, worst) for row in rows for it, worst in row.measured if it == family]
        _draw_family(axis, family, pairs, kinds)
    axes[-1].set_xlabel("test accuracy after the last round")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right upper")
    caption = (
        "Each point is a run. Up is the mean leakage to the strongest attacker, over clients and "
        "rounds. Right is the model's accuracy. The line joins the runs that no other run beats "
        "in both. The dashed line is the best guess without any update."
    )
    sentences = [_who_attacked(family, every) for family in families]
    return picture("Leakage against accuracy", " ".join([caption, *sentences]), fig)


def _who_attacked(family: str, rows: Sequence[Defended]) -> str:
    """Return whether attackers of a family knew the defense, and which runs have no answer."""
    lefts = [left for row in rows for left in row.left if left.family == family]
    silent = [row.run.label for row in rows if family in row.run.silent]
    text = "no attacker here knows the defense; one that does may get more."
    if any(left.adaptive for left in lefts):
        text = "some attackers know the defense."
    elif any(left.words[1] != "–" for left in lefts):
        text = "the attackers that know the defense gave no answer."
    if silent:
        text += f" Not drawn, because no attack gave an answer: {listed(silent)}."
    return f"{family.capitalize()}: {text}"


def _draw_family(
    axis: "Axes", family: str, pairs: Sequence[tuple[Defended, Curve]], kinds: Sequence[str]
) -> None:
    """Draw a point per run, the line of the best runs, and the blind guess."""
    points = [(row.accuracy or 0.0, worst.main.value) for row, worst in pairs]
    for place, kind in enumerate(kinds):
        of_kind = [i for i, (row, _) in enumerate(pairs) if row.kind == kind]
        if of_kind:
            axis.scatter(
                *np.array([points[i] for i in of_kind]).T,
                color=COLOURS[place % len(COLOURS)],
                label="no defense" if kind == "none" else short(kind),
                s=34,
                marker=MARKERS[place // len(COLOURS) % len(MARKERS)],
                zorder=3,
            )
    best = front(points)
    beaten = {"color": "#888888", "lw": 1, "zorder": 2, "label": "_not beaten in both"}
    axis.plot(*np.array([points[i] for i in best]).T, **beaten)
    metric = pairs[0][1].metric
    blind = float(np.mean([worst.main.blind_value for _, worst in pairs]))
    _limit(axis, points, blind)
    fit(axis, metric)
    _draw_blind(axis, blind)
    axis.set_ylabel(f"{family}: {metric_name(metric)}")
    named = best if len(points) > NAMED else range(len(points))
    _name(axis, [points[i] for i in named], [short(pairs[i][0].run.label) for i in named])


def _name(axis: "Axes", points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write names beside points, each higher until it lies over no other; roughly, in points."""
    taken: list[tuple[float, float, float]] = []
    places = axis.transData.transform(points) * 72 / axis.figure.dpi
    for i in np.argsort(places[:, 1], kind="stable").tolist():
        (x, y), width, lift = places[i], LETTER * len(names[i]), 4.0
        while any(abs(y + lift - h) < LINE and x < r and left < x + width for left, r, h in taken):
            lift += LINE
        taken.append((x, x + width, y + lift))
        axis.annotate(
            str(names[i]),
            points[i],
            xytext=(5, lift),
            textcoords="offset points",
            fontsize=7,
            color="#444444",
        )


def _limit(axis: "Axes", points: Sequence[tuple[float, float]], blind: float) -> None:
    """Let the panel reach a little beyond its points and the blind guess."""
    for values, limit in ((0, axis.set_xlim), (1, axis.set_ylim)):
        along = [point[values] for point in points] + [blind] * values
        limit(max(0.0, min(along) - 0.05), min(1.02, max(along) + 0.05))


def _draw_blind(axis: "Axes", blind: float) -> None:
    axis.axhline(blind, ls="--", lw=1, color="#555555", zorder=1, label="_blind guess")
    place = axis.get_yaxis_transform()
    axis.text(0.01, blind, "blind guess", transform=place, fontsize=8, va="bottom", color="#555555")


def _best(curves: Sequence[Curve]) -> Curve | None:
    return max(curves, key=lambda curve: curve.main.value, default=None)


def _number(value: Any) -> float | None:
    """Return a number of a table; None if there was none."""
    return None if np.isnan(value) else float(value)
