"""What the attacks of one family show, and its words: how far above blind, when, how sure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsim.core.units import name_of, scale_of, written
from fedsim.report.curves import Curve
from fedsim.report.intervals import LEVEL, Gap
from fedsim.report.unmeasured import NAMED, more
from fedsim.report.words import listed, spans

State = Literal["above", "in part", "unsure", "not above"]
STATES: tuple[State, ...] = ("above", "in part", "unsure", "not above")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The attack of a family that is most clearly above its blind guess.

    Attributes:
        curve: The attack.
        gap: How far each of its updates is above blind.
        state: `above`: the interval of the mean is above 0. `in part`: it is so in single rounds
            or for single clients only. `unsure`: the mean is above 0, and the interval has 0 in it.
            `not above`: the mean is not above 0.
        interval: Of the mean, at a level that holds for all attacks together; None of a single
            update.
        compared: How many attacks the level holds for.
        rounds: The rounds whose mean is above blind.
        sure_rounds: The rounds that are above blind by an interval of their own.
        sure_clients: The clients that are.
        top: The attack of the family that is farthest above blind for a single update.
        kind: What is compared: attacks by their main metric, or by each metric.
    """

    curve: Curve
    gap: Gap
    state: State
    interval: tuple[float, float] | None
    compared: int
    rounds: Sequence[int]
    sure_rounds: Sequence[int]
    sure_clients: Sequence[str]
    top: Curve
    kind: Literal["attacks", "comparisons"] = "attacks"

    @property
    def family(self) -> str:
        """As in the ledger."""
        return self.curve.family

    @property
    def sentences(self) -> list[str]:
        """The finding in words."""
        return [*_how_far(self), *_when(self)]


def _how_far(it: Finding) -> list[str]:
    """Say who recovered what, how far from blind, and how sure that is."""
    metric, curve, gap = it.curve.metric, it.curve, it.gap
    knows = ", which knows the defense," if curve.adaptive else ""
    blind = float(gap.blinds.mean())
    who = f"{curve.attack}{knows} reaches"
    if it.state == "not above":
        who = f"the best attack, {curve.attack}{knows}, reaches"
    side = "above" if gap.mean > 0 else "below"
    far = f"{points(metric, abs(gap.mean))} {side} blind" if gap.mean else "equal to blind"
    value = f"{name_of(metric)} {written(metric, blind + gap.mean)}"
    return [
        f"{it.family}: {who} {value}, {far} ({written(metric, blind)}).",
        *_how_sure(it),
    ]


def _how_sure(it: Finding) -> list[str]:
    """Say what the interval is, what it is over, and where it leaves doubt."""
    if it.interval is None:
        return ["There are too few updates for an interval: chance is not excluded."]
    together = f", for all {it.compared} {it.kind} together" if it.compared > 1 else ""
    low, high = (points(it.curve.metric, end, unit=False) for end in it.interval)
    unit = unit_after(it.curve.metric)
    text = f"The {100 * LEVEL:.0f} % interval over {it.gap.over} is {low} to {high}{unit}{together}"
    if it.state == "unsure":
        return [f"{text}. It includes blind: chance is not excluded."]
    return [f"{text}."]


def _when(it: Finding) -> list[str]:
    """Say in which rounds it is above blind, and which update gives away most."""
    if it.state == "not above":
        return _peak(it)
    rounds = len(set(it.gap.rounds.tolist()))
    if len(it.rounds) == rounds:
        first = int(it.gap.rounds.min())
        where = f"in all {rounds} rounds, from round {first} on" if rounds > 1 else ""
    else:
        where = f"in {len(it.rounds)} of {rounds} rounds ({_some_rounds(it.rounds)})"
    sentences = [f"Its mean is above blind {where}."] if where else []
    if it.state == "in part":
        parts = [f"rounds {_some_rounds(it.sure_rounds)}"] if it.sure_rounds else []
        names = listed([*it.sure_clients[:NAMED], *more(len(it.sure_clients) - NAMED)])
        parts += [f"clients {names}"] if it.sure_clients else []
        sentences.append(f"Alone, it is above blind beyond chance for {' and for '.join(parts)}.")
    return [*sentences, *_peak(it)]


def _peak(it: Finding) -> list[str]:
    """Name the update that is farthest above blind, by whichever attack of the family."""
    gap, metric = it.top.gap, it.top.metric
    if gap is None or gap.values.max() <= 0:
        return []
    top = int(np.argmax(gap.values))
    value = written(metric, float(gap.values[top] + gap.blinds[top]))
    place = int(gap.clients[top])
    whose = f"client {gap.names[place]}" if place >= 0 else "all clients"
    blind = written(metric, float(gap.blinds[top]))
    who = "It" if it.top is it.curve else it.top.title
    where = f"{whose} in round {gap.rounds[top]}"
    return [f"{who} is farthest above blind for {where} ({value}, blind {blind})."]


def points(metric: str, gap: float, *, unit: bool = True) -> str:
    """Return a distance on a metric's scale: `47.2 points` between shares, `3.1 dB`."""
    digits = {"%": f"{100 * gap:.1f}", "dB": f"{gap:.1f}"}
    text = digits.get(scale_of(metric).unit, f"{gap:.2f}")
    return text + (unit_after(metric) if unit else "")


def unit_after(metric: str) -> str:
    """Return the unit of distances on a metric's scale, as it follows a number."""
    unit = scale_of(metric).unit
    return " points" if unit == "%" else f" {unit}".rstrip()


def _some_rounds(rounds: Sequence[int]) -> str:
    """Return rounds in words; of many pieces the first and the last round."""
    text = spans(rounds)
    return (
        text if text.count(",") < 2 * NAMED else f"the first is {rounds[0]}, the last {rounds[-1]}"
    )
