"""What defenses promise, cost and leave: a table, and leakage against accuracy."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc

import defenses
from defenses import Promise
from fedsim.report.data import Curve, RunData, metric_name, part_text
from fedsim.report.figures import Picture, fit, panels_of, svg
from fedsim.report.over_rounds import COLOURS, MARKERS, short

NAMED = 12  # points that are named in a picture; beyond it only the best


@dataclass(frozen=True)
class Left:
    """What the strongest attacker of a family gets in spite of a defense.

    Attributes:
        static: Best attack that knows nothing of the defense.
        adaptive: Best that knows it; None where there is none.
    """

    family: str
    static: Curve | None
    adaptive: Curve | None

    @property
    def worst(self) -> Curve:
        """The stronger of the two: a defense is worth what it is against the best attacker."""
        known = [curve for curve in (self.static, self.adaptive) if curve is not None]
        return max(known, key=lambda curve: curve.main.value)


class Defended:
    """One run, as its defense shows it."""

    def __init__(self, run: RunData) -> None:
        self.run = run
        self.name = " → ".join(map(part_text, run.folder.config.defense)) or "none"
        self.kind = " → ".join(part.name for part in run.folder.config.defense) or "none"

    @cached_property
    def promise(self) -> Promise:
        """What the chain of defenses guarantees."""
        return defenses.build(self.run.folder.config.defense).promise

    @cached_property
    def epsilon(self) -> float | None:
        """The largest client's ε after the last round; None without a formal promise."""
        rows = self.run.metrics.filter(pc.field("metric") == "epsilon")
        return pc.max(rows["value"]).as_py()

    @cached_property
    def accuracy(self) -> float | None:
        """The model's last test accuracy."""
        values = self.run.accuracy[1]
        return float(values[-1]) if len(values) else None

    def mean(self, metric: str) -> float | None:
        """Return the mean of one of the defense's costs over clients and rounds."""
        rows = self.run.metrics.filter(
            (pc.field("metric") == metric) & (pc.field("split") == "defense")
        )
        return pc.mean(rows["value"]).as_py()

    @cached_property
    def kilobytes(self) -> float | None:
        """Size of an upload's shortest plain encoding, in units of 1,000 bytes."""
        size = self.mean("upload_bytes")
        return None if size is None else size / 1000

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of training a round, the defense included."""
        rows = self.run.metrics.filter(pc.field("metric") == "train_seconds")
        return pc.mean(rows["value"]).as_py()

    @cached_property
    def left(self) -> list[Left]:
        """What attackers get, family by family."""
        found = []
        for family in self.run.families:
            curves = [c for c in self.run.curves if c.family == family and not c.baseline]
            best = [
                max(group, key=lambda c: c.main.value) if group else None
                for group in (
                    [c for c in curves if not c.adaptive], [c for c in curves if c.adaptive],
                )
            ]  # fmt: skip
            if curves:
                found.append(Left(family, *best))
        return found


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other beats: (accuracy, leakage), more of one and less of two.

    Returns:
        Their places, by rising accuracy; of equal points the first.
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i))
    kept, lowest = [], float("inf")
    for place in order:
        if points[place][1] < lowest:
            kept.append(place)
            lowest = points[place][1]
    return kept[::-1]


def trade_off(rows: Sequence[Defended]) -> Picture | None:
    """Draw the strongest attacker's leakage against the model's accuracy, a point per run."""
    known = [row for row in rows if row.accuracy is not None and row.left]
    families = list(dict.fromkeys(left.family for row in known for left in row.left))
    if len(known) < 2:
        return None
    fig, axes = panels_of(len(families))
    kinds = list(dict.fromkeys(row.kind for row in known))
    for axis, family in zip(axes, families, strict=True):
        mine = [(row, left) for row in known for left in row.left if left.family == family]
        points = [(row.accuracy or 0.0, left.worst.main.value) for row, left in mine]
        for place, kind in enumerate(kinds):
            own = np.array(
                [point for (row, _), point in zip(mine, points, strict=True) if row.kind == kind]
            )
            if len(own):
                axis.scatter(
                    *own.T, color=COLOURS[place % len(COLOURS)], label=short(kind), s=34,
                    marker=MARKERS[place // len(COLOURS) % len(MARKERS)], zorder=3,
                )  # fmt: skip
        best = front(points)
        axis.plot(*np.array([points[i] for i in best]).T, color="#888888", lw=1, zorder=2)
        for i in best if len(points) > NAMED else range(len(points)):
            axis.annotate(
                short(_options(mine[i][0])), points[i], xytext=(5, 4), fontsize=7,
                textcoords="offset points", color="#444444",
            )  # fmt: skip
        blind = float(np.mean([left.worst.main.blind_value for _, left in mine]))
        for values, limit in ((0, axis.set_xlim), (1, axis.set_ylim)):
            along = [point[values] for point in points] + [blind] * values
            limit(max(0.0, min(along) - 0.05), min(1.02, max(along) + 0.05))
        fit(axis, mine[0][1].worst.metric)
        axis.axhline(blind, ls="--", lw=1, color="#555555", zorder=1)
        axis.text(0.01, blind, "blind guess", transform=axis.get_yaxis_transform(), fontsize=8,
                  va="bottom", color="#555555")  # fmt: skip
        axis.set_ylabel(f"{family}: {metric_name(mine[0][1].worst.metric)}")
    axes[-1].set_xlabel("test accuracy after the last round")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right upper")
    caption = (
        "One point per run: up is what the strongest attacker got, on average over clients and "
        "rounds; right is the model's accuracy. The line joins the runs that no other beats in "
        "both. Dashed: the best guess without any update."
    )
    for family in families:
        lefts = [left for row in known for left in row.left if left.family == family]
        knowing = any(left.adaptive for left in lefts)
        caption += (
            f" {family.capitalize()}: attackers that know the defense are among them."
            if knowing else
            f" {family.capitalize()}: no attacker here knows the defense, and one that does may "
            "get more."
        )  # fmt: skip
    return Picture("Leakage against accuracy", caption, svg(fig))


def _options(row: Defended) -> str:
    """Return the options of a run's defenses, shortly; the legend has their names."""
    values = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for part in row.run.folder.config.defense
        for key, value in part.options.items()
    ]
    return ", ".join(values) or row.kind
