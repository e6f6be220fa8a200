"""What the command line prints of attacks: a line per round as it ends, and their means."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.cli.eta import Eta
from fedsim.cli.unanswered import Unanswered
from fedsim.core.catalog import find
from fedsim.core.units import name_of, title_of, written

if TYPE_CHECKING:
    from rich.console import Console

    from fedsim.run.outcomes import Answers

ROUND, SECONDS, COLUMN = "round  accuracy", "   seconds", 12
PERPLEXED = "round  perplexity"  # of a language model


class Rounds:
    """A line per round as it ends, never wider than the terminal, and a bar below them.

    Args:
        config: What runs.
        target: Where to.
        console: Where it is printed.
        quiet: Print nothing.
    """

    def __init__(self, config: Any, target: Path, console: "Console", *, quiet: bool) -> None:
        self.config, self.target, self.console, self.quiet = config, target, console, quiet
        self.attacks = [part.name for part in config.attack]
        self.records = False
        self.shown, self.head = columns_that_fit(self.attacks, console.width), ROUND
        self.eta = Eta(config.federation.rounds, console)
        self.bar = self.eta.bar(quiet=quiet)
        self.started = False
        self.unanswered = Unanswered()
        self.alone: Mapping[str, int] = {}

    def __enter__(self) -> "Rounds":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def warn(self, plan: Any) -> None:
        """Say before a long run what attacks cannot read, and why reconstruction will be hard.

        Before that, what became of a user's data.
        """
        self.attacks = [attack.name for attack in plan.attacks if not attack.adaptive]
        self.head = ROUND if plan.federated.dataset.targets is None else PERPLEXED
        self.records = plan.auxiliary.schema is not None
        self.shown = columns_that_fit(self.attacks, self.console.width, records=self.records)
        if self.quiet:
            return
        from fedsim.run.costs import expected_costs, remarks
        from fedsim.run.readable import unreadable

        for remark in plan.federated.dataset.remarks:
            self.console.print(remark, style="yellow", markup=False)
        for reason, titles in unreadable(plan).items():
            text = f"{', '.join(titles)} will refuse every update: {reason}"
            self.console.print(text, style="yellow", markup=False)
        if costs := expected_costs(plan):
            for sentence in remarks(plan, costs):
                self.console.print(sentence, style="yellow", markup=False)
        if all(attack.family != "reconstruction" for attack in plan.attacks):
            return
        from statistics import median

        from fedsim.explain import hindrances

        count = int(median(len(rows) for rows in plan.federated.clients))
        self._plans(plan, count)
        shape = plan.federated.dataset.input_shape
        local, weights = plan.local, plan.model.state_dict()
        several = hindrances(plan.model, weights, shape, local, count)
        if several:
            heads = "; ".join(f"{it.name} ({it.value})" for it in several)
            text = f"reconstruction will be hard: {heads}. The report explains each."
            self.console.print(text, style="yellow", markup=False)

    def _plans(self, plan: Any, count: int) -> None:
        """Say which attacks those that choose will choose, for a client of median size."""
        local = plan.local
        used = min(count, local.batch_size) if local.upload == "gradient" else count
        for attack in plan.attacks:
            if attack.plan is not None and not attack.adaptive:
                text = f"{attack.title} {attack.plan(plan.auxiliary, local, used)}"
                self.console.print(text, style="yellow", markup=False)
            if (cost := attack.estimate(plan.auxiliary, used)) is not None and cost.is_large:
                text = (
                    f"attack.{attack.title}: up to {cost} for an answer, as estimated from shapes"
                )
                self.console.print(text, style="yellow", markup=False)

    def show(self, done: Any) -> None:
        """Print one finished round."""
        if self.quiet:
            self.started = True
            return
        if not self.started:
            self._start()
        self._reached(done.number, done.number)
        self.eta.touch()
        cells = self._cells(done.leakage, {each.title: each for each in done.answers})
        utility = percent(done.accuracy)
        if self.head is PERPLEXED:
            utility = "–" if done.perplexity is None else f"{done.perplexity:.4g}"
        utility = f"{utility:>{len(self.head) - 5}}"
        self.bar.console.print(f"{done.number:>5}{utility}{cells}{done.seconds:>10.2f}")
        self._below(f"client {client} failed: {reason}" for client, reason in done.failures[:3])
        if len(done.failures) > 3:
            self._below([f"and {len(done.failures) - 3} more"])
        self._below(self.unanswered.lines(done.answers))
        if done.alone != self.alone:
            self.alone = done.alone
            self._below(
                f"{count} clients trained one by one: {reason}"
                for reason, count in done.alone.items()
            )

    def client(self, round_: int, count: int, asked: int) -> None:
        """Show that a client of a round has replied, and how long the run will still take."""
        if self.quiet:
            return
        if not self.started:
            self._start()
        if self.eta.first is None:
            self.eta.begin(round_ - 1)
        left = self._reached(round_, round_ - 1 + count / asked)
        self.eta.line(f"       round {round_}: {count} of {asked} clients{left and ', '}{left}")

    def _reached(self, round_: int, done: float) -> str:
        """Move the bar; return the time that is left."""
        left, total = self.eta.left(done), self.config.federation.rounds
        text = f"round {round_}/{total}"
        self.bar.update(self.task, completed=done, description=text, left=left)
        return left

    def _below(self, texts: Iterable[str]) -> None:
        """Print what a reader must know of the line above."""
        for text in texts:
            self.bar.console.print(f"       {text}", style="yellow", markup=False)

    def _start(self) -> None:
        """Print the head of the table, once there is something to put under it."""
        self.started = True
        federation, data = self.config.federation, self.config.data
        self.console.print(
            f"{data.name} · {self.config.model.name} · {federation.strategy} · "
            f"{federation.clients} clients · {federation.rounds} rounds → {self.target}\n",
            soft_wrap=True,
        )
        names = "".join(
            f"{_head(name, self.records):>{_width(name, self.records)}}" for name in self.shown
        )
        first = name_of(_metric(self.attacks[0], self.records)) if self.attacks else ""
        if len(self.shown) < len(self.attacks):
            names += f"{'best ' + first:>{_best_width(self.attacks)}}"
        names += (
            f"{'blind ' + first:>{_blind_width(self.attacks, self.records)}}"
            if self.attacks
            else ""
        )
        self.console.print(f"{self.head}{names}{SECONDS}", style="bold")
        self.task = self.bar.add_task("", total=federation.rounds, left="")
        self.bar.start()

    def _cells(
        self, leakage: Mapping[str, tuple[float, float]], answers: "Mapping[str, Answers]"
    ) -> str:
        """Return the attacks' part of a line; the best by name where not all are shown.

        The best and the blind guess are those of the first attack's metric.
        """
        values = {name: leakage[name][0] for name in self.attacks if name in leakage}
        texts = {
            name: _text(_metric(name, self.records), values.get(name), answers.get(name))
            for name in self.attacks
        }
        cells = "".join(f"{texts[name]:>{_width(name, self.records)}}" for name in self.shown)
        first = _metric(self.attacks[0], self.records) if self.attacks else ""
        alike = [name for name in values if _metric(name, self.records) == first]
        if len(self.shown) < len(self.attacks):
            best = best_of({name: values[name] for name in alike})
            words = {each.word for each in answers.values()}
            none = words.pop() if len(words) == 1 else percent(None)
            text = f"{best} {texts[best]}" if best else none
            cells += f"{text:>{_best_width(self.attacks)}}"
        blind = next((leakage[name][1] for name in alike), None)
        width = _blind_width(self.attacks, self.records)
        return cells + (f"{written(first, blind):>{width}}" if first else "")


def _text(metric: str, value: float | None, answers: "Answers | None") -> str:
    """Return an attack's mean over the clients that it answered; `!` says that there are others.

    Without any answer it is the word for that.
    """
    if value is None:
        return answers.word if answers else percent(None)
    return written(metric, value) + ("!" if answers and answers.counts else "")


def columns_that_fit(attacks: Sequence[str], width: int, *, records: bool = False) -> list[str]:
    """Return the attacks, from the first, that have a column of their own in a terminal.

    Args:
        attacks: Their names.
        width: Of the terminal, in characters.
        records: Whether examples are records of declared columns.
    """
    room = width - len(ROUND) - len(SECONDS) - _blind_width(attacks, records)
    if sum(_width(name, records) for name in attacks) <= room:
        return list(attacks)
    room -= _best_width(attacks)
    shown: list[str] = []
    for name in attacks:
        room -= _width(name, records)
        if room < 0:
            break
        shown.append(name)
    return shown


def best_of(values: Mapping[str, float]) -> str | None:
    """Return the attack with the largest value; a baseline only where there is nothing else."""
    from adversary.attacks import is_baseline

    real = [name for name in values if not is_baseline(name)]
    return max(real or values, key=lambda name: values[name], default=None)


def print_attacks(means: Sequence[Mapping[str, Any]], console: "Console") -> None:
    """Print the means of `api.means`: a table per family, with a row per attack, by skill.

    Where means are not over all updates, a column says over how many they are.
    """
    from adversary.grading.families import FAMILIES

    attacks: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in means:
        title = title_of(row["attack"], adaptive=row["adaptive"])
        attacks.setdefault(title, {})[row["metric"]] = row
    tables: dict[tuple[str, ...], list[str]] = {}
    for name, rows in attacks.items():
        orders = (
            # What some data alone define comes in place of the rest: a console is narrow.
            tuple(m for m in family.optional if m in rows)
            or tuple(m for m in family.ranked if m in rows)
            for family in FAMILIES.values()
            if {*family.metrics, *family.pooled} <= {*rows} <= {*family.ranked}
        )
        tables.setdefault(next(orders, tuple(sorted(rows))), []).append(name)
    for metrics, names in tables.items():
        by = "skill" if "skill" in metrics else metrics[0]
        value = {name: attacks[name][by]["value"] for name in names}
        names.sort(key=lambda name: -value[name] if value[name] is not None else float("inf"))
        console.print(_table(metrics, {name: attacks[name] for name in names}))


def audit_line(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the largest bound of the last audit beside what theory claims; None without any."""
    bounds = [row for row in rows if row["metric"] == "epsilon_lower" and row["value"] is not None]
    if not bounds:
        return None
    best = max(bounds, key=lambda row: row["value"])
    return (
        f"ε ≥ {best['value']:.3g} by {best['attack']} until round {best['round']}, where theory "
        f"claims at most {best['theory']:.3g}"
    )


def percent(value: float | None) -> str:
    """Return a share as text."""
    return written("", value)


def _table(metrics: Sequence[str], attacks: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("attack")
    heads = [name_of(metric) for metric in metrics]
    for head in (heads[0], "blind", *heads[1:], "ms"):
        table.add_column(head, justify="right", no_wrap=True)
    partly = any(_is_partial(rows[metrics[0]]) for rows in attacks.values())
    if partly:
        table.add_column("mean of", justify="right", no_wrap=True)
    for name, rows in attacks.items():
        values = [_mean_text(metric, rows[metric]) for metric in metrics]
        first = rows[metrics[0]]
        blind, spent = written(metrics[0], first["blind"]), f"{first['ms']:.2f}"
        part = [f"{first['graded']}/{first['of']}"] if partly else []
        table.add_row(name, values[0], blind, *values[1:], spent, *part)
    return table


def _is_partial(row: Mapping[str, Any]) -> bool:
    """Return whether a mean is over some updates only, or there is none because of failures."""
    missing = row["failed"] + row["refused"]
    return missing > 0 or 0 < row["graded"] < row["of"]


def _mean_text(metric: str, row: Mapping[str, Any]) -> str:
    if row["failed"] + row["refused"] == row["of"]:
        return "failed" if row["failed"] else "refused"
    return written(metric, row["value"])


@lru_cache(maxsize=256)
def _metric(attack: str, records: bool) -> str:
    """Return an attack's headline metric; ASR for one that does not exist.

    Args:
        attack: Its name.
        records: Whether examples are records of declared columns.
    """
    from adversary.grading.families import FAMILIES
    from adversary.grading.selection import available

    attacks = available()
    exists = attack in attacks or ":" in attack
    family = getattr(find("attack.name", attack, attacks), "family", None) if exists else None
    of = FAMILIES[family if family in FAMILIES else "label"]
    return of.optional[0] if records and of.optional else of.metrics[0]


def _head(attack: str, records: bool) -> str:
    return f"{attack} {name_of(_metric(attack, records))}"


def _width(attack: str, records: bool) -> int:
    return max(COLUMN, len(_head(attack, records)) + 2)


def _best_width(attacks: Sequence[str]) -> int:
    return max(map(len, attacks), default=0) + 10


def _blind_width(attacks: Sequence[str], records: bool) -> int:
    name = name_of(_metric(attacks[0], records)) if attacks else ""
    return max(COLUMN, len(f"  blind {name}"))
