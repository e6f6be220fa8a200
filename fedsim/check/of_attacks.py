"""What a ledger shows about a rule on attacks, and why it may not show enough."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from adversary.attacks import ATTACKS, is_baseline
from adversary.grading.families import FAMILIES
from fedsim.check.evidence import Evidence, Value, half_width
from fedsim.config import Part, Rule
from fedsim.run.ledger import attacks_of, over_clients, titled
from fedsim.run.outcomes import Answers, answers_of, in_part


@dataclass(frozen=True)
class Ledger:
    """The attacks of a run, as rules see them.

    Attributes:
        table: The ledger.
        parts: The attacks of the config.
        rounds: The recorded ones.
        uploads: How many were recorded in all of them.
    """

    table: pa.Table
    parts: Sequence[Part]
    rounds: Sequence[int]
    uploads: int = 0

    @cached_property
    def rows(self) -> pa.Table:
        """The rows of attacks, with their titles."""
        return titled(attacks_of(self.table))

    def evidence(self, rule: Rule, confidence: float) -> Evidence:
        """Return what the ledger shows about a rule.

        Args:
            rule: On a family of attacks.
            confidence: Of each margin of error.
        """
        rows = self._of(rule)
        if not rows.num_rows:
            return Evidence(problems=[self._absent(rule)])
        metric = _where(rows, "metric", rule.metric)
        problems = [
            *self._not_run(rule, rows),
            *_unanswered(rule, rows),
            *self._ungraded(rule, rows, metric),
        ]
        graded = over_clients(metric.filter(_finite(metric, "value")))
        problems += _not_compared(metric, graded)
        if (
            rule.base == "blind"
            and graded.num_rows > graded.filter(_finite(graded, "blind")).num_rows
        ):
            problems.append("the blind guess was not graded, so that nothing stands beside values")
            graded = graded.slice(0, 0)
        refusals = [each for each in answers_of(rows) if each.refused and not each.failed]
        notes = [f"{each.title} {each.sentence}" for each in refusals]
        notes += in_part(rows, self.uploads)
        return Evidence(_values(rule, graded, confidence), problems, notes)

    def _of(self, rule: Rule) -> pa.Table:
        """Return the rows that a rule is about: of all attacks but baselines, or of the named."""
        rows = _where(self.rows, "family", rule.family)
        if rule.attack is not None:
            return _where(rows, "attack", rule.attack)
        baselines = [name for name, attack in ATTACKS.items() if attack.baseline]
        import pyarrow.compute as pc

        return rows.filter(pc.invert(pc.is_in(rows["attack"], value_set=pa.array(baselines))))

    def _absent(self, rule: Rule) -> str:
        what = f"attack '{rule.attack}'" if rule.attack else f"attack on {rule.family}"
        return f"no {what} was run"

    def _not_run(self, rule: Rule, rows: pa.Table) -> Iterator[str]:
        """Yield a sentence per attack that the config names and that has no rows where due."""
        options = {part.name: part.options for part in self.parts}
        run = set(rows["attack"].unique().to_pylist())
        for name in options:
            of_family = name in ATTACKS and ATTACKS[name].family == rule.family
            chosen = rule.attack == name or (rule.attack is None and of_family)
            if chosen and not is_baseline(name) and name not in run:
                yield f"{name}: is in the config and has no rows"
        of_round = rule.family in FAMILIES and FAMILIES[rule.family].of_round
        rounds = self.rounds[1:] if of_round else self.rounds  # which compares with earlier ones
        for title in rows["title"].unique().to_pylist():
            of = _where(rows, "title", title)
            every = options.get(of["attack"][0].as_py(), {}).get("every", 1)
            due = {number for number in rounds if (number - 1) % every == 0}
            if missing := sorted(due - set(of["round"].unique().to_pylist())):
                yield f"{title} was not run on {len(missing)} recorded rounds, from {missing[0]} on"

    def _ungraded(self, rule: Rule, rows: pa.Table, metric: pa.Table) -> Iterator[str]:
        """Yield a sentence per attack whose answers have no value."""
        for title in rows["title"].unique().to_pylist():
            of = _where(metric, "title", title)
            if not of.num_rows:
                names = sorted(set(_where(rows, "title", title)["metric"].to_pylist()))
                yield f"{title} has no metric '{rule.metric}', only {', '.join(names)}"
                continue
            if count := _where(of, "outcome", "no truth").num_rows:
                yield f"{title} answered {count} updates without truth to grade the answers"
            count = (
                of.filter(_valid(of, "value")).num_rows - of.filter(_finite(of, "value")).num_rows
            )
            if count:
                yield f"{title} has {count} values that are not finite"
            yield from _undefined(title, of)


def _not_compared(metric: pa.Table, graded: pa.Table) -> Iterator[str]:
    """Yield a sentence per attack that has graded rows without a value in some round."""
    for title in metric["title"].unique().to_pylist():
        rows = _where(_where(metric, "title", title), "outcome", "graded")
        compared = set(_where(graded, "title", title)["round"].to_pylist())
        empty = rows.num_rows - rows.filter(_valid(rows, "value")).num_rows
        if empty:
            yield f"{title} has {empty} graded rows without a value"
        if without := sorted(set(rows["round"].to_pylist()) - compared):
            yield f"{title}: no value is compared in {len(without)} rounds, from {without[0]} on"


def _undefined(title: str, rows: pa.Table) -> Iterator[str]:
    """Yield a sentence where a metric is not defined for any client of a round."""
    defined = set(rows.filter(_differs(rows, "outcome", "undefined"))["round"].to_pylist())
    if without := sorted(set(rows["round"].to_pylist()) - defined):
        count = len(without)
        yield f"{title}: the metric is not defined in {count} rounds, from {without[0]} on"


def _unanswered(rule: Rule, rows: pa.Table) -> Iterator[str]:
    """Yield a sentence per attack that failed, and one for updates that all refused."""
    answers = answers_of(rows)
    for each in answers:
        if each.failed or (rule.attack is not None and each.refused):
            yield f"{each.title} {each.sentence}"
    if rule.attack is None and (count := _all_refused(rows)) and not any(a.failed for a in answers):
        yield f"every attack refused {count} of the updates, such as {_reason(answers)}"


def _all_refused(rows: pa.Table) -> int:
    """Return how many updates no attack answered."""
    single = rows.filter(_valid(rows, "client"))
    groups = (single if single.num_rows else rows).group_by(
        ["round", "client", "outcome"], use_threads=False
    )
    outcomes: dict[tuple[int, str], set[str]] = {}
    for row in groups.aggregate([]).to_pylist():
        outcomes.setdefault((row["round"], row["client"]), set()).add(row["outcome"])
    return sum(of <= {"failed", "refused"} for of in outcomes.values())


def _reason(answers: Sequence[Answers]) -> str:
    return next((f"{each.title}: {each.reason}" for each in answers if each.refused), "")


@dataclass(frozen=True)
class _Columns:
    """Graded rows of one attack, in arrays.

    Attributes:
        title: The attack's.
        rounds, clients, values, bases: Of each row; a base is 0 where none is compared.
    """

    title: str
    rounds: NDArray[np.int64]
    clients: NDArray[np.object_]
    values: NDArray[np.float64]
    bases: NDArray[np.float64]

    def mean(self, where: str, chosen: NDArray[np.bool_], confidence: float) -> Value:
        """Return the mean of the chosen rows with its margin."""
        values, bases, clients = self.values[chosen], self.bases[chosen], self.clients[chosen]
        differences = values - bases
        half = half_width(differences, clients.tolist(), confidence)
        middle = float(differences.mean())
        count = len(set(clients.tolist()))
        pooled = clients[0] is None
        return Value(
            title=self.title,
            where=where,
            value=float(values.mean()),
            base=float(bases.mean()),
            low=None if half is None else middle - half,
            high=None if half is None else middle + half,
            of="pooled over clients" if pooled else f"{count} client{'s' * (count > 1)}",
        )

    def most_telling(self, *, upward: bool) -> Value:
        """Return the row that is nearest to a violation: there may be a million."""
        differences = self.values - self.bases
        place = int(np.argmax(differences) if upward else np.argmin(differences))
        return Value(
            title=self.title,
            where=f"round {self.rounds[place]}, client {self.clients[place] or 'all'}",
            value=float(self.values[place]),
            base=float(self.bases[place]),
            low=None,
            high=None,
            of=f"of {len(self.values)} updates",
        )


def _values(rule: Rule, rows: pa.Table, confidence: float) -> list[Value]:
    """Return the values that a rule compares."""
    values = []
    for title in rows["title"].unique().to_pylist():
        of = _where(rows, "title", title)
        graded = np.asarray(of["value"].to_numpy(), dtype=float)
        columns = _Columns(
            title,
            of["round"].to_numpy(),
            np.array(of["client"].to_pylist(), dtype=object),
            graded,
            of["blind"].to_numpy().astype(float) if rule.base else np.zeros_like(graded),
        )
        if rule.over == "client":
            values.append(columns.most_telling(upward=rule.upward))
            continue
        if rule.over == "mean":
            values.append(columns.mean("all rounds", np.ones(len(graded), dtype=bool), confidence))
            continue
        numbers = np.unique(columns.rounds)
        for number in numbers[-1:] if rule.over == "last" else numbers:
            values.append(columns.mean(f"round {number}", columns.rounds == number, confidence))
    return values


def _where(table: pa.Table, column: str, value: str) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table[column], value))


def _differs(table: pa.Table, column: str, value: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.not_equal(table[column], value)


def _valid(table: pa.Table, column: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.is_valid(table[column])


def _finite(table: pa.Table, column: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.fill_null(pc.is_finite(table[column]), fill_value=False)
