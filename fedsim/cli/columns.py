"""The columns of the lines that a run prints: attacks in a terminal of some width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fedsim.core.catalog import find
from fedsim.core.units import name_of, written

if TYPE_CHECKING:
    from fedsim.run.outcomes import Answers

SECONDS, LEAST = "   seconds", 12


@dataclass(frozen=True)
class Columns:
    """Which attacks have a column of their own; beside them the best of all, and the blind guess.

    Args:
        attacks: All attacks, by name.
        shown: The first of them, as many as fit.
        records: Whether examples are records of declared columns, which are graded cell by cell.
        first: The head of the columns to the left.
    """

    attacks: Sequence[str]
    shown: Sequence[str]
    records: bool
    first: str

    @classmethod
    def that_fit(
        cls, attacks: Sequence[str], width: int, *, records: bool, first: str
    ) -> "Columns":
        """Return the columns that fit into a terminal.

        Args:
            attacks: All attacks, by name.
            width: Of the terminal, in characters.
            records: Whether examples are records of declared columns.
            first: The head of the columns to the left.
        """
        every = cls(attacks, attacks, records, first)
        room = width - len(first) - len(SECONDS) - every._blind_width()
        if sum(map(every._width, attacks)) <= room:
            return every
        room -= every._best_width()
        shown: list[str] = []
        for name in attacks:
            room -= every._width(name)
            if room < 0:
                break
            shown.append(name)
        return cls(attacks, shown, records, first)

    def heads(self) -> str:
        """Return the line above all others."""
        names = "".join(f"{self._head(name):>{self._width(name)}}" for name in self.shown)
        if self.attacks:
            metric = name_of(self.metric)
            if len(self.shown) < len(self.attacks):
                names += f"{'best ' + metric:>{self._best_width()}}"
            names += f"{'blind ' + metric:>{self._blind_width()}}"
        return f"{self.first}{names}{SECONDS}"

    def cells(
        self, leakage: Mapping[str, tuple[float, float]], answers: "Mapping[str, Answers]"
    ) -> str:
        """Return the attacks' part of a line; the best by name where not all are shown.

        The best and the blind guess are those of the first attack's metric.

        Args:
            leakage: The mean value and the mean blind value by attack.
            answers: How many of its answers there are, and why others are none, by attack.
        """
        if not self.attacks:
            return ""
        values = {name: leakage[name][0] for name in self.attacks if name in leakage}
        texts = {
            name: _text(self._metric(name), values.get(name), answers.get(name))
            for name in self.attacks
        }
        cells = "".join(f"{texts[name]:>{self._width(name)}}" for name in self.shown)
        alike = [name for name in values if self._metric(name) == self.metric]
        if len(self.shown) < len(self.attacks):
            best = best_of({name: values[name] for name in alike})
            words = {each.word for each in answers.values()}
            none = words.pop() if len(words) == 1 else written("", None)
            text = f"{best} {texts[best]}" if best else none
            cells += f"{text:>{self._best_width()}}"
        blind = next((leakage[name][1] for name in alike), None)
        return cells + f"{written(self.metric, blind):>{self._blind_width()}}"

    @property
    def metric(self) -> str:
        """The first attack's headline metric."""
        return self._metric(self.attacks[0])

    def _metric(self, attack: str) -> str:
        return _headline(attack, self.records)

    def _head(self, attack: str) -> str:
        return f"{attack} {name_of(self._metric(attack))}"

    def _width(self, attack: str) -> int:
        return max(LEAST, len(self._head(attack)) + 2)

    def _best_width(self) -> int:
        return max(map(len, self.attacks), default=0) + 10

    def _blind_width(self) -> int:
        return max(LEAST, len(f"  blind {name_of(self.metric) if self.attacks else ''}"))


def best_of(values: Mapping[str, float]) -> str | None:
    """Return the attack with the largest value; a baseline only where there is nothing else."""
    from adversary.attacks import is_baseline

    real = [name for name in values if not is_baseline(name)]
    return max(real or values, key=lambda name: values[name], default=None)


def _text(metric: str, value: float | None, answers: "Answers | None") -> str:
    """Return an attack's mean over the clients that it answered; `!` says that there are others.

    Without any answer it is the word for that.
    """
    if value is None:
        return answers.word if answers else written("", None)
    return written(metric, value) + ("!" if answers and answers.counts else "")


@lru_cache(maxsize=256)
def _headline(attack: str, records: bool) -> str:
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
