"""The verdict on a run in short sentences: what leaked, how far above blind, how sure that is."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedsim.core.units import name_of, scale_of, written
from fedsim.report.data import Curve, RunData, listed, spans
from fedsim.report.intervals import LEVEL, Gap
from fedsim.report.single import TEXT, single_gaps
from fedsim.report.unmeasured import (
    NAMED,
    in_part_of,
    limits_of,
    more,
    never_run_of,
    not_finite_of,
    ungraded_of,
)
from fedsim.run.outcomes import NOT_SAFE, Answers
from fedsim.run.run_folder import RunFolder

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


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run's ledger says.

    Attributes:
        findings: One for each family that was graded, what is above blind first.
        unanswered: The attacks that gave no answer.
        attacks: How many attacks were run that look at updates.
        opening: The first sentence where nothing above blind was recovered, or nothing graded.
        limits: Which attacks did not answer.
    """

    findings: Sequence[Finding]
    unanswered: Sequence[Answers]
    attacks: int
    opening: Sequence[str]
    limits: Sequence[str]

    @property
    def leaks(self) -> bool:
        """Whether something above blind was recovered, beyond chance at the level."""
        return any(it.state in ("above", "in part") for it in self.findings)

    @property
    def paragraphs(self) -> list[str]:
        """The whole in words: an opening, a paragraph per family, and what was not answered."""
        parts = [self.opening, *(it.sentences for it in self.findings), self.limits]
        return [" ".join(part) for part in parts if part]

    @property
    def headline(self) -> str:
        """The first sentence, for a line in a list, with its doubt."""
        if self.opening or not self.findings:
            return [*self.opening, *self.limits][0]
        doubt = " Chance is not excluded." if self.findings[0].state == "unsure" else ""
        return self.findings[0].sentences[0] + doubt


def verdict_of(folder: RunFolder) -> Verdict:
    """Return the verdict on a run.

    Raises:
        ConfigError: The run has no finished round.
        BadRecording: A table is missing or damaged.
    """
    return verdict(RunData(folder))


def verdict(run: RunData) -> Verdict:
    """Return the verdict on a run whose tables were read."""
    gaps = [(c, c.gap) for c in run.curves if c.gap is not None and not c.baseline]
    families: dict[str, list[tuple[Curve, Gap]]] = {}
    for curve, gap in gaps:
        families.setdefault(curve.family, []).append((curve, gap))
    findings = [_best(run, of, len(gaps)) for of in families.values()]
    findings.sort(key=lambda it: STATES.index(it.state))
    attacks = [each for each in run.answers.values() if not each.baseline]
    unanswered = [each for each in attacks if not each.answered]
    graded = {curve.title for curve, _ in gaps}
    ungraded = [each for each in attacks if each.answered and each.title not in graded]
    chosen = (part.name for part in run.folder.config.attack)
    never = never_run_of(chosen, {each.attack for each in run.answers.values()})
    return Verdict(
        findings=findings,
        unanswered=unanswered,
        attacks=len(attacks),
        opening=_opening(run, findings, len(attacks), graded=not (ungraded or run.not_finite)),
        limits=[
            *limits_of(attacks, unanswered),
            *in_part_of(run.in_part),
            *ungraded_of(ungraded),
            *not_finite_of(run.not_finite),
            *never,
        ],
    )


def _best(run: RunData, attacks: Sequence[tuple[Curve, Gap]], compared: int) -> Finding:
    """Return what the attacks of one family show.

    By their main metric, or by one of single examples if only that is surely above blind: a mean
    over examples may be near or below blind where one of them is recovered as it is.
    """
    best = _most_clearly(attacks, compared)
    if best.state in ("above", "in part"):
        return best
    others = [
        (replace(curve, metric=metric, gap=gap), gap)
        for curve, _ in attacks
        for metric, gap in single_gaps(run, curve)
    ]
    if not others:
        return best
    other = _most_clearly(others, compared * (1 + len(others)))
    better = ["above", "in part"]
    if other.family == TEXT and best.state == "not above":
        better.append("unsure")  # nobody guesses a whole text by chance
    return replace(other, kind="comparisons") if other.state in better else best


def _most_clearly(attacks: Sequence[tuple[Curve, Gap]], compared: int) -> Finding:
    top, _ = max(attacks, key=lambda pair: pair[1].values.max())
    findings = [_finding(curve, gap, compared, top) for curve, gap in attacks]
    return min(findings, key=lambda it: (STATES.index(it.state), -it.gap.mean))


def _finding(curve: Curve, gap: Gap, compared: int, top: Curve) -> Finding:
    """Return what one of `compared` attacks shows; Bonferroni's level holds for all of them."""
    interval = gap.interval(1 - (1 - LEVEL) / compared)
    by_round, by_client = gap.by("rounds"), gap.by("clients")
    sure_rounds = [round_ for round_, of in by_round.items() if _is_above(of, compared, by_round)]
    sure_clients = [
        gap.names[place]
        for place, of in by_client.items()
        if place >= 0 and _is_above(of, compared, by_client)
    ]
    return Finding(
        curve=curve,
        gap=gap,
        state=_state(gap, interval, part=bool(sure_rounds or sure_clients)),
        interval=interval,
        compared=compared,
        rounds=[round_ for round_, of in by_round.items() if of.mean > 0],
        sure_rounds=sure_rounds,
        sure_clients=sure_clients,
        top=top,
    )


def _is_above(gap: Gap, compared: int, among: Sized) -> bool:
    """Whether one of many rounds (or clients) is above blind at a level that holds for all."""
    if gap.mean <= 0:
        return False
    interval = gap.interval(1 - (1 - LEVEL) / (compared * len(among)))
    return interval is not None and interval[0] > 0


def _state(gap: Gap, interval: tuple[float, float] | None, *, part: bool) -> State:
    if interval is not None and interval[0] > 0:
        return "above"
    if part:
        return "in part"
    return "unsure" if gap.mean > 0 else "not above"


def _opening(run: RunData, findings: Sequence[Finding], attacks: int, *, graded: bool) -> list[str]:
    """Return the first sentence where nothing above blind was found, or could be."""
    if not attacks:
        return ["No attack was run. What the updates give away is not measured."]
    if not findings:
        return [run.why_ungraded]
    if any(it.state != "not above" for it in findings):
        return []
    those = "these attacks" if graded else "the attacks that were graded"
    single = any(it.top.gap is not None and it.top.gap.values.max() > 0 for it in findings)
    if single:
        return [
            f"On average, nothing above blind was recovered by {those}. Single updates are above "
            f"blind. {NOT_SAFE}"
        ]
    return [f"Nothing above blind was recovered by {those}. {NOT_SAFE}"]


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
