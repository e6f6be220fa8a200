"""Runs of one setting with several seeds, taken together: means and intervals over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.core.units import name_of, scale_of, written
from fedsim.report.curves import Curve, Series
from fedsim.report.data import RunData
from fedsim.report.differences import labels_of
from fedsim.report.finding import points, unit_after
from fedsim.report.intervals import LEVEL, mean_interval
from fedsim.report.unmeasured import limits_of
from fedsim.run.outcomes import NOT_SAFE, Answers


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attack over seeds.

    Attributes:
        curve: Its means over seeds.
        seeds: In how many runs it was graded.
        value: The 95 % interval of the main metric; None of a single run.
        excess: That of value − blind.
    """

    curve: Curve
    seeds: int
    value: tuple[float, float] | None
    excess: tuple[float, float] | None

    @property
    def texts(self) -> tuple[str, str]:
        """Both intervals in words; dashes of a single run."""
        metric = self.curve.metric
        value = " to ".join(written(metric, end) for end in self.value or ()) or "–"
        if self.excess is None:
            return value, "–"
        low, high = (points(metric, end, unit=False) for end in self.excess)
        return value, f"{low} to {high}{unit_after(metric)}"

    @property
    def above(self) -> bool:
        """Whether the value is above blind by the interval."""
        return self.excess is not None and self.excess[0] > 0


class Repeats(RunData):
    """Several runs of one setting as if they were one: curves are means over seeds.

    The band of a curve is the 95 % interval of the mean over seeds, by Student's distribution.
    """

    def __init__(self, runs: Sequence[RunData], label: str) -> None:
        self.runs = runs
        self.label = self.name = label
        self.folder, self.ledger = runs[0].folder, runs[0].ledger
        self.metrics, self.audits = runs[0].metrics, runs[0].audits

    @cached_property
    def curves(self) -> list[Curve]:
        """Every attack that was graded in some run, the most skilful first."""
        curves = [self._over(of) for of in self._groups.values()]
        return sorted(curves, key=lambda curve: (-curve.skill, curve.order))

    @cached_property
    def rows(self) -> list[Row]:
        """Every attack with its intervals over seeds."""
        rows = []
        for curve in self.curves:
            of = self._groups[curve.title]
            values = np.array([each.main.value for each in of])
            blinds = np.array([each.main.blind_value for each in of])
            scale = scale_of(curve.metric)
            farthest = scale.high - scale.low
            excess = mean_interval(values - blinds, -farthest, farthest)
            rows.append(
                Row(
                    curve=curve,
                    seeds=len(of),
                    value=mean_interval(values, scale.low, scale.high),
                    excess=excess,
                )
            )
        return rows

    @cached_property
    def accuracy(self) -> tuple[NDArray, NDArray]:
        """Rounds, and the mean of the models' test accuracy in them."""
        rounds, means, _, _ = _over_rounds([run.accuracy for run in self.runs])
        return rounds, means

    @property
    def verdict(self) -> list[str]:
        """A sentence per family on the attack that is best over seeds, and who did not answer."""
        sentences = []
        for family in self.families:
            best = self.leaders(family)[0]
            row = next(row for row in self.rows if row.curve is best)
            gap = best.main.value - best.main.blind_value
            side = "above" if gap > 0 else "below"
            text = (
                f"{family}: {best.title} reaches {name_of(best.metric)} "
                f"{written(best.metric, best.main.value)}, {points(best.metric, abs(gap))} {side} "
                f"blind, over {row.seeds} seeds"
            )
            text += f" (95 % interval of the distance: {row.texts[1]})" if row.excess else ""
            doubt = gap > 0 and not row.above
            sentences.append(f"{text}.{' Chance is not excluded.' if doubt else ''}")
        attacks = [each for each in self.answers.values() if not each.baseline]
        silent = [each for each in attacks if not each.answered]
        limits = limits_of(attacks, silent) if silent or any(it.counts for it in attacks) else []
        return [*sentences, *limits, NOT_SAFE]

    @cached_property
    def attacks(self) -> list[str]:
        """The titles of all attacks in all runs."""
        return list(dict.fromkeys(title for run in self.runs for title in run.attacks))

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """What became of every attack on the updates of all runs, by title."""
        of = lambda title: [run.answers[title] for run in self.runs if title in run.answers]
        return {title: _together(of(title)) for title in self.attacks}

    @property
    def final_accuracy(self) -> tuple[float, tuple[float, float] | None] | None:
        """Mean of the last test accuracy, and its interval over seeds."""
        last = np.array([run.accuracy[1][-1] for run in self.runs if len(run.accuracy[1])])
        return (float(last.mean()), mean_interval(last, 0.0, 1.0)) if len(last) else None

    def interval(self, curve: Curve) -> tuple[float, float] | None:
        """Return the interval of an attack's value over seeds; None if one run has it."""
        return next((row.value for row in self.rows if row.curve.title == curve.title), None)

    @property
    def band(self) -> str:
        """What the bands of its curves are, in words."""
        return (
            f"{100 * LEVEL:.0f} % intervals of the mean over {len(self.runs)} seeds (Student's, on "
            "each seed's mean over clients)"
        )

    @cached_property
    def _groups(self) -> dict[str, list[Curve]]:
        groups: dict[str, list[Curve]] = {}
        for run in self.runs:
            for curve in run.curves:
                groups.setdefault(curve.title, []).append(curve)
        return groups

    def _over(self, curves: Sequence[Curve]) -> Curve:
        """Return the mean of one attack's curves."""
        alike = [curve for curve in curves if curve.metric == curves[0].metric]
        skills = [curve.skills for curve in alike if curve.skills]
        names = set.intersection(*(set(curve.means) for curve in alike))
        return replace(
            alike[0],
            main=_mean([curve.main for curve in alike]),
            skills=_mean(skills) if skills else None,
            means={name: float(np.mean([c.means[name] for c in alike])) for name in sorted(names)},
            milliseconds=float(np.mean([curve.milliseconds for curve in alike])),
            answers=self.answers[alike[0].title],
            gap=None,
        )


def over_seeds(runs: Sequence[RunData]) -> list[RunData]:
    """Return runs with those that differ in nothing but their seed taken together.

    Copies of one run are no repeats: a group with one seed twice stays apart.
    """
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        same = run.folder.config.model_dump_json(exclude={"seed", "versions", "engine"})
        groups.setdefault(same, []).append(run)
    for same, of in list(groups.items()):
        if len({run.folder.config.seed for run in of}) < len(of):
            del groups[same]
            groups |= {f"{same} {place}": [run] for place, run in enumerate(of)}
    firsts = [of[0] for of in groups.values()]
    names = [run.name if len(firsts) > 1 else "all seeds" for run in firsts]
    labels = labels_of([run.folder.config for run in firsts], names)
    settings = []
    for of, label in zip(groups.values(), labels, strict=True):
        if len(of) == 1 and len(groups) < len(runs):  # without the seed, which tells none apart
            of[0].label = label
        settings.append(of[0] if len(of) == 1 else Repeats(of, label))
    return settings


def _together(answers: Sequence[Answers]) -> Answers:
    """Return what became of one attack in several runs."""
    total = lambda name: sum(getattr(each, name) for each in answers)
    without = max(answers, key=lambda each: each.failed + each.refused)
    return replace(
        without, updates=total("updates"), failed=total("failed"), refused=total("refused")
    )


def _mean(series: Sequence[Series]) -> Series:
    """Return means over seeds; the band is the interval of the mean."""
    rounds, mean, low, high = _over_rounds([(it.rounds, it.mean) for it in series])
    _, blind, _, _ = _over_rounds([(it.rounds, it.blind) for it in series])
    return Series(
        rounds=rounds,
        mean=mean,
        low=low,
        high=high,
        blind=blind,
        value=float(np.mean([it.value for it in series])),
        blind_value=float(np.mean([it.blind_value for it in series])),
    )


def _over_rounds(lines: Sequence[tuple[NDArray, NDArray]]) -> tuple[NDArray[Any], ...]:
    """Return rounds, means, and both ends of the mean's interval; NaN of a single line."""
    rounds = np.unique(np.concatenate([at for at, _ in lines]))
    table = np.full((len(lines), len(rounds)), np.nan)
    for row, (at, values) in zip(table, lines, strict=True):
        row[np.searchsorted(rounds, at)] = values
    columns = [column[np.isfinite(column)] for column in table.T]
    means = np.array([column.mean() if len(column) else np.nan for column in columns])
    ends = [mean_interval(column, -np.inf, np.inf) or (np.nan, np.nan) for column in columns]
    low, high = np.array(ends, dtype=np.float64).reshape(-1, 2).T
    return rounds, means, low, high
