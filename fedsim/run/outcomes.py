"""How many updates each attack answered, why it did not answer others, and means over the answers.

An update is one client (or cohort) in one round.
"""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from adversary.attacks import is_baseline
from fedsim.core.errors import NoAnswer
from fedsim.core.rows import Leak
from fedsim.core.units import title_of
from fedsim.run.ledger import AUDIT, attacks_of, over_clients
from strategies.tape import recorded_clients, recorded_rounds

KEYS = ("attack", "adaptive", "family", "round", "client", "outcome", "reason")
NOT_SAFE = "This does not show that the updates are safe."


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What became of one attack on the updates that it was run on.

    Attributes:
        attack: As the config calls it.
        adaptive: Whether it is the adversary that knows the clients' defense.
        updates: How many updates it was run on.
        failed: On how many of them it raised an error.
        refused: How many of them it does not apply to.
        reason: The most frequent reason for which it did not answer, numbers in it aside; empty
            where it answered all.
        reasons: How many different reasons there are, numbers in them aside.
    """

    attack: str
    adaptive: bool
    family: str
    updates: int
    failed: int
    refused: int
    reason: str
    reasons: int

    @property
    def answered(self) -> int:
        """How many updates it answered, with or without truth to grade the answer."""
        return self.updates - self.failed - self.refused

    @property
    def title(self) -> str:
        """What it is called in tables and pictures."""
        return title_of(self.attack, adaptive=self.adaptive)

    @property
    def baseline(self) -> bool:
        """Whether it looks at no update."""
        return is_baseline(self.attack)

    @property
    def word(self) -> str:
        """In place of a value where there is no answer: failed, or refused; else a dash."""
        if self.answered:
            return "–"
        return "failed" if self.failed else "refused"

    @property
    def counts(self) -> str:
        """How often it did not answer: `failed on 3 of 12 updates`; empty where it answered all."""
        parts = [f"failed on {self.failed}"] if self.failed else []
        parts += [f"refused {self.refused}"] if self.refused else []
        ending = "s" * (self.updates > 1)
        return f"{' and '.join(parts)} of {self.updates} update{ending}" if parts else ""

    @property
    def sentence(self) -> str:
        """The same with the reason, or the most frequent one."""
        often = ", most often" if self.reasons > 1 else ""
        return f"{self.counts}{often}: {self.reason}" if self.counts else ""


def answers_of(ledger: pa.Table) -> list[Answers]:
    """Return what became of each attack in a ledger, in the order of its rows.

    Rows that are pooled over clients count nothing where these have rows of their own.
    """
    groups = attacks_of(ledger).group_by(list(KEYS), use_threads=False).aggregate([])
    return _by_attack(groups.to_pylist())


def answers_in(leaks: Iterable[Leak]) -> list[Answers]:
    """Return what `answers_of` returns for a ledger of these rows, without a table."""
    keys = attrgetter(*KEYS)
    groups = dict.fromkeys(keys(leak) for leak in leaks if leak.family != AUDIT)
    return _by_attack(dict(zip(KEYS, group, strict=True)) for group in groups)


def _by_attack(groups: Iterable[dict[str, Any]]) -> list[Answers]:
    rows: dict[tuple[str, bool, str], list[dict[str, Any]]] = defaultdict(list)
    for row in groups:
        rows[row["attack"], row["adaptive"], row["family"]].append(row)
    return [_answers(*attack, of) for attack, of in rows.items()]


def unanswered(answers: Iterable[Answers]) -> list[Answers]:
    """Return the attacks that did not answer every update."""
    return [each for each in answers if each.counts]


def num_uploads(tape: Path) -> int:
    """Return how many uploads of clients (or cohorts) stand on a tape, over all rounds."""
    return sum(len(recorded_clients(tape, round_)) for round_ in recorded_rounds(tape))


def in_part(rows: pa.Table, uploads: int) -> Iterator[str]:
    """Yield a sentence per attack that was run on a part of the uploads: the rest is open.

    Args:
        rows: Of a ledger, with the titles of attacks; a baseline's too.
        uploads: How many uploads there were, such as those on tape.
    """
    import pyarrow.compute as pc

    single = rows.filter(pc.is_valid(rows["client"]))
    keys = ["title", "attack", "round", "client"]
    updates = single.group_by(keys, use_threads=False).aggregate([])
    counts = updates.group_by(["title", "attack"], use_threads=False).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        count = row["count_all"]
        if count < uploads and not is_baseline(row["attack"]):
            yield f"{row['title']} was run on {count} of {uploads} recorded uploads"


def silent(answers: Iterable[Answers]) -> dict[str, list[Answers]]:
    """Return the attacks of each family in which none answered a single update.

    A baseline looks at no update: it does not speak for its family.
    """
    families: dict[str, list[Answers]] = defaultdict(list)
    for each in answers:
        if not each.baseline:
            families[each.family].append(each)
    return {name: of for name, of in families.items() if not any(each.answered for each in of)}


def check_answered(answers: Sequence[Answers]) -> None:
    """Refuse a ledger in which a family has no answer.

    Raises:
        NoAnswer: There is such a family.
    """
    texts = [
        f"no {family} attack answered ({'; '.join(f'{each.title} {each.counts}' for each in of)})"
        for family, of in silent(answers).items()
    ]
    if texts:
        raise NoAnswer(
            f"--strict: an attack of each family must answer, got: {', '.join(texts)}. {NOT_SAFE}"
        )


def as_json(answers: Iterable[Answers]) -> list[dict[str, Any]]:
    """Return the attacks that did not answer every update, as the command line prints them."""
    return [
        {
            "attack": each.attack,
            "adaptive": each.adaptive,
            "family": each.family,
            "updates": each.updates,
            "answered": each.answered,
            "failed": each.failed,
            "refused": each.refused,
            "reason": each.reason,
        }
        for each in unanswered(answers)
    ]


def means_of(ledger: pa.Table) -> list[dict[str, Any]]:
    """Return the mean of each attack's metrics with counts of rows, as `fedsim.api.means`."""
    rows = over_clients(attacks_of(ledger))
    groups = rows.group_by(["attack", "adaptive", "metric"], use_threads=False)
    lists = groups.aggregate([(name, "list") for name in ("value", "blind", "seconds", "outcome")])
    return [_mean(row) for row in lists.to_pylist()]


def pattern_of(reason: str) -> str:
    """Return a reason without its numbers: reasons with one pattern are alike."""
    return re.sub(r"\d+(\.\d+)?", "#", reason)


def _answers(
    attack: str, adaptive: bool, family: str, rows: Sequence[Mapping[str, Any]]
) -> Answers:
    rows = [row for row in rows if row["client"] is not None] or rows
    updates = {(row["round"], row["client"]) for row in rows}
    outcomes = Counter(row["outcome"] for row in rows)
    without = [row["reason"] or "" for row in rows if row["outcome"] in ("failed", "refused")]
    patterns = Counter(map(pattern_of, without))
    often = patterns.most_common(1)[0][0] if patterns else ""
    return Answers(
        attack=attack,
        adaptive=adaptive,
        family=family,
        updates=len(updates),
        failed=outcomes["failed"],
        refused=outcomes["refused"],
        reason=next((reason for reason in without if pattern_of(reason) == often), ""),
        reasons=len(patterns),
    )


def _mean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the means of one attack's rows of one metric, given as lists."""
    outcomes = Counter(row["outcome_list"])
    graded = [value is not None for value in row["value_list"]]

    def mean(name: str) -> float | None:
        pairs = zip(row[f"{name}_list"], graded, strict=True)
        values = [value for value, use in pairs if value is not None and (use or not any(graded))]
        return sum(values) / len(values) if values else None

    return {
        "attack": row["attack"],
        "adaptive": row["adaptive"],
        "metric": row["metric"],
        "value": mean("value"),
        "blind": mean("blind"),
        "ms": 1000 * (mean("seconds") or 0.0),
        "graded": sum(graded),
        "of": len(graded),
        "failed": outcomes["failed"],
        "refused": outcomes["refused"],
    }
