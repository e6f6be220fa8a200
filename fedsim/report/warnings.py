"""What a reader must know before believing a report: warnings, remarks and failures in words."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow.compute as pc

from adversary.auditing.finding import METRICS, Guarantee
from adversary.labels.validity import LIMIT
from fedsim.core.units import title_of, written
from fedsim.report.data import RunData, listed, spans
from fedsim.run.notes import note_of

LITTLE_SKILL = 0.1


@dataclass(frozen=True)
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
    return [*_refuted(run), *_validity(run), *_chance(run), *_obstacles(run)]


def remarks(run: RunData) -> list[str]:
    """Return a sentence per reason for which attacks answered with a remark."""
    rows = run.metrics.filter(pc.field("split") == "attack").to_pylist()
    notes = [note for row in rows if (note := note_of(row)) and not note.failed]
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
    found: dict[tuple[str, str], list[Mapping]] = {}
    for what, row in rows:
        pattern = re.sub(r"\d+(\.\d+)?", "#", row["reason"] or "")
        found.setdefault((what, pattern), []).append(row)
    return [
        Group(
            what=what,
            reason=members[0]["reason"] or "",
            alike=len({row["reason"] for row in members}),
            rows=len(members),
            clients=tuple(dict.fromkeys(str(row["client"]) for row in members)),
            rounds=spans([row["round"] for row in members]),
        )
        for (what, _), members in found.items()
    ]


def _refuted(run: RunData) -> list[str]:
    """Say where the last audit's bounds exceed what the clients' defense claims."""
    rows = run.audits.filter(pc.field("metric") == METRICS[Guarantee.BOUND]).to_pylist()
    last = max((row["round"] for row in rows), default=0)
    above = [
        row for row in rows
        if row["round"] == last and row["value"] is not None and row["value"] > row["ceiling"]
    ]  # fmt: skip
    if not above:
        return []
    wrong = f"{100 * (1 - run.folder.config.audit.confidence):.2g} %"
    bounds = listed([f"{row['value']:.3g} ({row['attack']})" for row in above])
    return [
        f"The audit exceeds what the defense claims: until round {last} ε is at least {bounds}, "
        f"where at most {above[0]['ceiling']:.3g} is claimed. Each bound is too high in at most "
        f"{wrong} of audits of a true claim; what it assumes stands in the table of the audit."
    ]


def _validity(run: RunData) -> list[str]:
    known = (pc.field("metric") == "validity") & pc.field("value").is_valid()
    rows = run.metrics.filter(known).to_pylist()
    above = {row["round"]: row["value"] for row in rows if row["value"] > LIMIT}
    if not above:
        return []
    low, high = (f"{pick(above.values()):.1f}" for pick in (min, max))
    reach = low if low == high else f"{low} to {high}"
    return [
        f"The validity number lr·E[‖h‖² + 1] is above {LIMIT:g} in {_rounds(spans(list(above)))} "
        f"({reach}): several local steps overshoot there, and every attack on one update is poor. "
        "Little leakage in such rounds is no promise of privacy."
    ]


def _chance(run: RunData) -> list[str]:
    """Say for each family where even its best attack finds nothing."""
    found = []
    for family in run.families:
        best = run.leaders(family)[0]
        if best.baseline:
            continue
        name, value, blind = best.metric.upper(), best.main.value, best.main.blind_value
        if best.skill < LITTLE_SKILL:
            found.append(
                f"No {family} attack gets beyond chance: the best, {best.title}, has a mean skill "
                f"of {best.skill:.2f} (below {LITTLE_SKILL:g}). This says how these attacks fare, "
                "not that the updates are safe."
            )
        elif value <= blind:
            found.append(
                f"No {family} attack beats the blind guess: the best, {best.title}, has a mean "
                f"{name} of {written(best.metric, value)}, a guess without any update "
                f"{written(best.metric, blind)}. "
                "This says how these attacks fare, not that the updates are safe."
            )
    return found


def _obstacles(run: RunData) -> list[str]:
    """Say what stood in the way of reconstructions, where any were tried."""
    rows = run.metrics.filter(pc.field("metric") == "obstacle").to_pylist()
    return [
        f"In the way of reconstruction in {_rounds(group.rounds)}: {group.reason}."
        for group in groups(rows)
    ]


def _remark(names: list[str], reason: str, alike: int, clients: int, rounds: str) -> str:
    who = listed(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    example = f" (and {alike - 1} more like it)" if alike > 1 else ""
    where = f"{clients} client{'s' * (clients > 1)}, {_rounds(rounds)}"
    return f"{who} answered with a remark ({where}): {reason}{example}."


def _rounds(text: str) -> str:
    return f"round {text}" if text.isdigit() else f"rounds {text}"
