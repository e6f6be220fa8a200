"""What a reader must know before believing a report: warnings, remarks and failures in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adversary.auditing.finding import METRICS, Guarantee
from adversary.labels.validity import LIMIT
from fedsim.core.tables import frame
from fedsim.core.units import title_of, written
from fedsim.report.data import RunData
from fedsim.report.select import records, select
from fedsim.report.single import TEXT, single_gaps
from fedsim.report.verdict import verdict
from fedsim.report.words import listed, spans
from fedsim.run.notes import note_of
from fedsim.run.outcomes import NOT_SAFE, Answers, pattern_of

LITTLE_SKILL, MOST = 0.1, 4
ABOUT_THESE = "This result is about these attacks only. It does not mean that the updates are safe."


@dataclass(frozen=True, kw_only=True)
class Group:
    """Metrics rows that say the same thing, whatever numbers stand in their reasons.

    Attributes:
        what: Their metric, or whom they are about.
        reason: That of the first row.
        alike: How many different reasons there are.
        rows: How many rows.
        clients: Their clients.
        rounds: The rounds, in words.
    """

    what: str
    reason: str
    alike: int
    rows: int
    clients: tuple[str, ...]
    rounds: str


def warnings(run: RunData) -> list[str]:
    """Return a sentence for everything that limits what the report's numbers mean."""
    parts = (_refuted, _silent, _partly, _validity, _chance, _obstacles)
    return [sentence for part in parts for sentence in part(run)]


def remarks(run: RunData) -> list[str]:
    """Return a sentence per reason for which attacks answered with a remark."""
    rows = records(select(frame(run.metrics), split="attack"))
    notes = [note for row in rows if (note := note_of(row)) and note.kind == "note"]
    per_attack = _groups((title_of(it.attack, adaptive=it.adaptive), vars(it)) for it in notes)
    same: dict[tuple, list[str]] = {}
    for group in per_attack:
        key = (group.reason, group.alike, len(group.clients), group.rounds)
        same.setdefault(key, []).append(group.what)
    return [_remark(names, *key) for key, names in same.items()]


def groups(rows: Iterable[dict]) -> list[Group]:
    """Group metrics rows by metric and reason, where numbers in reasons make no difference."""
    return _groups((row["metric"], row) for row in rows)


def _groups(rows: Iterable[tuple[str, Mapping]]) -> list[Group]:
    """Group what is said of things by the thing and the reason."""
    alike: dict[tuple[str, str], list[Mapping]] = {}
    for what, row in rows:
        alike.setdefault((what, pattern_of(row["reason"] or "")), []).append(row)
    return [
        Group(
            what=what,
            reason=members[0]["reason"] or "",
            alike=len({row["reason"] for row in members}),
            rows=len(members),
            clients=tuple(dict.fromkeys(str(row["client"]) for row in members)),
            rounds=spans([row["round"] for row in members]),
        )
        for (what, _), members in alike.items()
    ]


def _refuted(run: RunData) -> list[str]:
    """Say where the last audit's bounds exceed what the clients' defense claims."""
    bounds = select(frame(run.audits), metric=METRICS[Guarantee.BOUND])
    last = select(bounds, round=bounds["round"].max())
    above = records(last.take(np.flatnonzero(last["value"] > last["ceiling"])))
    if not above:
        return []
    wrong = f"{100 * (1 - run.folder.config.audit.confidence):.2g} %"
    values = listed([f"{row['value']:.3g} ({row['attack']})" for row in above])
    return [
        f"The audit exceeds the claim of the defense. Until round {above[0]['round']}, ε is at "
        f"least {values}. The claim is at most {above[0]['ceiling']:.3g}. If the claim is true, "
        f"each bound is too high in at most {wrong} of audits. The audit's table lists the "
        "assumptions of each bound."
    ]


def _silent(run: RunData) -> list[str]:
    """Say which families no attack answered: nothing is measured there."""
    return [
        f"No {family} attack gave an answer. {_each(attacks)} What the updates give away of this "
        f"kind is not measured. {NOT_SAFE}"
        for family, attacks in run.silent.items()
    ]


def _partly(run: RunData) -> list[str]:
    """Say which attacks did not answer every update, in families that have answers."""
    attacks = [
        each
        for each in run.answers.values()
        if each.counts and each not in run.silent.get(each.family, ())
    ]
    if not attacks:
        return []
    refused = "" if any(each.failed for each in attacks) else " A refusal is no error."
    means = "Means are over the updates that an attack answered."
    return [f"{_each(attacks)}{refused} {means} {NOT_SAFE}"]


def _each(attacks: Sequence[Answers]) -> str:
    """Return a sentence per attack, of many for the first ones."""
    texts = [f"{each.title} {each.sentence}." for each in attacks[:MOST]]
    more = len(attacks) - len(texts)
    if more:
        texts.append(f"The table of attacks names {more} more.")
    return " ".join(texts)


def _validity(run: RunData) -> list[str]:
    rows = select(frame(run.metrics), metric="validity")
    above = rows.take(np.flatnonzero(rows["value"] > LIMIT))
    if above.empty:
        return []
    low, high = (f"{value:.1f}" for value in (above["value"].min(), above["value"].max()))
    reach = low if low == high else f"{low} to {high}"
    rounds = _rounds(spans(above["round"].tolist()))
    return [
        f"The validity number lr·E[‖h‖² + 1] is above {LIMIT:g} in {rounds} ({reach}). Several "
        "local steps overshoot there, and attacks on one update work poorly. Low leakage in such "
        "rounds does not prove privacy."
    ]


def _chance(run: RunData) -> list[str]:
    """Say for each family where even its best attack finds nothing."""
    sentences = []
    for family in run.families:
        best = run.leaders(family)[0]
        if best.baseline:
            continue
        if _whole_texts(run) if family == TEXT else _single_examples(run, family):
            continue
        name, value, blind = best.metric_name, best.main.value, best.main.blind_value
        who = f"No {family} attack{_where_answered(run, family)}"
        if best.skill < LITTLE_SKILL:
            sentences.append(
                f"{who} is better than chance. The best, {best.title}, has a mean "
                f"skill of {best.skill:.2f} (below {LITTLE_SKILL:g}). {ABOUT_THESE}"
            )
        elif value <= blind:
            sentences.append(
                f"{who} is better than the blind guess. The best, {best.title}, has a "
                f"mean {name} of {written(best.metric, value)}. A guess without any update has "
                f"{written(best.metric, blind)}. {ABOUT_THESE}"
            )
    return sentences


def _whole_texts(run: RunData) -> bool:
    """Whether whole texts are recovered above blind, which a mean over tokens may hide."""
    gaps = (gap for it in run.leaders(TEXT) for _, gap in single_gaps(run, it))
    return any(gap.mean > 0 for gap in gaps)


def _single_examples(run: RunData, family: str) -> bool:
    """Whether the verdict is that single examples are above blind, where the mean hides it."""
    return any(it.family == family and it.kind == "comparisons" for it in verdict(run).findings)


def _where_answered(run: RunData, family: str) -> str:
    """Limit a sentence about a family's attacks to their answers, where some are missing."""
    missing = any(it.counts for it in run.answers.values() if it.family == family)
    return ", where it gave an answer," if missing else ""


def _obstacles(run: RunData) -> list[str]:
    """Say what stood in the way of reconstructions, where any were tried."""
    rows = records(select(frame(run.metrics), metric="obstacle"))
    return [
        f"An obstacle to reconstruction in {_rounds(group.rounds)}: {group.reason}."
        for group in groups(rows)
    ]


def _remark(names: list[str], reason: str, alike: int, clients: int, rounds: str) -> str:
    who = listed(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    example = f" (and {alike - 1} more like it)" if alike > 1 else ""
    where = f"{clients} client{'s' * (clients > 1)}, {_rounds(rounds)}"
    return f"{who} answered with a remark ({where}): {reason}{example}."


def _rounds(text: str) -> str:
    return f"round {text}" if text.isdigit() else f"rounds {text}"
