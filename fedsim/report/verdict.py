"""The verdict on a run: what leaked above blind, beyond chance, and what was not measured."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace

from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.finding import STATES, Finding, State
from fedsim.report.intervals import LEVEL, Gap
from fedsim.report.single import TEXT, single_gaps
from fedsim.report.unmeasured import in_part_of, limits_of, never_run_of, not_finite_of, ungraded_of
from fedsim.run.outcomes import NOT_SAFE, Answers
from fedsim.run.run_folder import RunFolder


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
