"""A verdict per rule: what violates it, or why a run cannot show that it is kept."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from fedsim.audit import table as audits
from fedsim.check.evidence import Evidence, Value
from fedsim.check.names import AUDIT, GAME, TEST, Names, check_names
from fedsim.check.of_attacks import Ledger
from fedsim.check.of_tables import (
    audit_rows,
    failures,
    game_rows,
    of_audited_rounds,
    of_audits,
    of_games,
    of_test,
)
from fedsim.config import Check, Rule, parse
from fedsim.core.errors import ConfigError, GateNotMet, shortened
from fedsim.games import table as games
from fedsim.run.outcomes import num_uploads
from fedsim.run.run_folder import RunFolder
from strategies.tape import recorded_rounds

Word = Literal["pass", "fail", "open"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one rule.

    Attributes:
        rule: The rule.
        word: `pass`: it is kept by every value. `fail`: a value violates it. `open`: the run cannot
            show that it is kept; an open rule does not pass.
        worst: The value that is nearest to a violation, or furthest in it; None without values.
        compared, violations: How many values were compared, and violate the rule.
        problems: Why the run cannot show that it is kept.
        notes: What a reader must know beside.
        confidence: Of the worst value's margin; None without one.
    """

    rule: Rule
    word: Word
    worst: Value | None
    compared: int
    violations: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    confidence: float | None

    @property
    def sentence(self) -> str:
        """Value, attack, round and limit in one line, or why there is none."""
        if self.word == "open":
            more = f" (and {len(self.problems) - 1} more reasons)" if self.problems[1:] else ""
            return shortened(f"no verdict: {self.problems[0]}{more}")
        worst = self.worst
        assert worst is not None
        margin, beside = "", ""
        if worst.low is not None and worst.high is not None:
            sure = "" if self.confidence is None else f" at {100 * self.confidence:.4g} %"
            margin = f", {worst.low + worst.base:.4g} to {worst.high + worst.base:.4g}{sure}"
        if self.rule.base:
            beside = f"; {self.rule.base} {worst.base:.4g}"
        place = ", ".join(filter(None, [worst.title, worst.where, worst.of]))
        count = (
            f"{self.violations} of {self.compared} values violate it; " if self.violations else ""
        )
        return f"{count}worst {worst.value:.4g}{margin} ({place}{beside})"


@dataclass(frozen=True)
class Gate:
    """The verdicts on all rules."""

    folder: str
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every rule is kept."""
        return all(verdict.word == "pass" for verdict in self.verdicts)

    def check(self) -> None:
        """Refuse a run that does not keep every rule.

        Raises:
            GateNotMet: It does not.
        """
        missed = [verdict for verdict in self.verdicts if verdict.word != "pass"]
        if missed:
            texts = "; ".join(f"'{verdict.rule.text}' {verdict.word}" for verdict in missed)
            raise GateNotMet(f"{self.folder}: must pass every rule, got {texts}")


def check(path: Path, extra: Sequence[Rule] = (), changes: Mapping[str, Any] | None = None) -> Gate:
    """Hold a folder against the rules of its config, and others.

    Args:
        path: A run, or the results of `fedsim audit` or `fedsim game`.
        extra: Rules beside those of the run's config.
        changes: Keys of the config's section `check`, and their values in place of the run's.

    Raises:
        ConfigError: There is no rule, one is about something that does not exist, or this is no
            folder of results.
        BadRecording: A file is damaged.
    """
    source = _source(path)
    before = source.settings or Check()
    settings = parse({"check": {**before.model_dump(), **(changes or {})}}).check or before
    rules = [*settings.rules, *extra]
    if not rules:
        raise ConfigError("--fail-if: must give a rule where check.fail_if has none, got none")
    check_names("check.fail_if", settings.rules, source.names, source.metrics)
    check_names("--fail-if", extra, source.names, source.metrics)
    verdicts = [_verdict(rule, settings, source) for rule in rules]
    return Gate(str(path), tuple(verdicts))


@dataclass(frozen=True)
class _Source:
    """The tables in a folder; a part is None where the folder has none of its kind."""

    run: RunFolder | None
    audit: Path | None
    game: Path | None

    @property
    def settings(self) -> Check | None:
        return self.run.config.check if self.run else None

    @cached_property
    def ledger(self) -> pa.Table | None:
        return self.run.ledger() if self.run else None

    @cached_property
    def unfinished(self) -> list[str]:
        """Why a run is not whole."""
        if self.run is None or self.run.config.foreign:
            return []
        done, all_ = max(self.run.finished_rounds, default=0), self.run.config.federation.rounds
        return [f"the run is not finished, {done} of {all_} rounds are"] if done < all_ else []

    @cached_property
    def not_kept(self) -> list[str]:
        """What was not recorded, so that no attack was run on it."""
        if self.run is None or self.run.config.foreign:
            return []
        record = self.run.config.record
        notes = [f"uploads of each {record.every}th round alone were recorded"]
        notes = notes if record.every > 1 else []
        if record.clients is not None:
            notes.append(f"uploads of {len(record.clients)} clients alone were recorded")
        return notes

    @cached_property
    def attacks(self) -> Ledger | None:
        if self.run is None or self.ledger is None:
            return None
        rounds = recorded_rounds(self.run.path)
        return Ledger(self.ledger, self.run.config.attack, rounds, num_uploads(self.run.path))

    @property
    def names(self) -> Names:
        """Family → what the tables hold."""
        names = _pairs(self.ledger, "attack")
        for part in self.run.config.attack if self.run else ():
            if ":" in part.name:  # whose family is not known before it is imported
                for family in names:
                    names[family].add(part.name)
        if self.audit:
            rows = audit_rows(self.audit)
            names.setdefault(AUDIT, set()).update(*((r["canary"], r["method"]) for r in rows))
        if self.game:
            names.setdefault(GAME, set()).update(row["game"] for row in game_rows(self.game))
        return names

    @property
    def metrics(self) -> Names:
        """Family → metrics in the tables."""
        return _pairs(self.ledger, "metric")

    def evidence(self, rule: Rule, confidence: float) -> Evidence:
        """Return what all tables show about a rule."""
        parts: list[Evidence] = []
        if rule.family == AUDIT:
            if self.run is not None and self.ledger is not None:
                parts.append(of_audited_rounds(rule, self.ledger, self.run.metrics()))
            parts += [of_audits(rule, self.audit)] if self.audit else []
        elif rule.family == GAME:
            parts += [of_games(rule, self.game)] if self.game else []
        elif self.run is not None and rule.family == TEST:
            parts.append(of_test(rule, self.run.metrics()))
        elif self.run is not None and self.attacks is not None:
            parts.append(
                self.attacks.evidence(rule, confidence)
                + Evidence(notes=[*self.not_kept, *failures(self.run.metrics())])
            )
        whole = sum(parts, Evidence(problems=self.unfinished))
        if not whole.values and not whole.problems:
            where = f" of '{rule.attack}'" if rule.attack else ""
            return Evidence(problems=[f"there is no {rule.family}.{rule.metric}{where}"])
        return whole


def _source(path: Path) -> _Source:
    """Return what a folder holds.

    Raises:
        ConfigError: It holds no results.
    """
    table = lambda folder, name: folder if (folder / name).exists() else None
    audit, game = table(path, audits.TABLE), table(path, games.TABLE)
    run = None
    if (path / "config.toml").exists() or (path / "rounds").exists():
        run = RunFolder(path)
        run.check_bytes()
        audit = audit or table(path / "audit", audits.TABLE)
        game = game or table(path / "game", games.TABLE)
    if run is None and audit is None and game is None:
        raise ConfigError(
            f"{path}: must be a run, or a folder of fedsim audit or fedsim game, got no "
            f"config.toml, {audits.TABLE} or {games.TABLE} in it"
        )
    if run is not None and not (path / "config.toml").exists():
        raise ConfigError(f"{path}: must be attacked before it is checked, got a bare tape")
    return _Source(run, audit, game)


def _verdict(rule: Rule, settings: Check, source: _Source) -> Verdict:
    evidence = source.evidence(rule, settings.confidence)
    confidence = settings.confidence
    if settings.margin == "lenient" and len(evidence.values) > 1:  # one of them exceeds by chance
        confidence = 1 - (1 - confidence) / len(evidence.values)
        evidence = source.evidence(rule, confidence)
    problems = list(evidence.problems)
    is_mean = (
        rule.family not in (AUDIT, TEST) and rule.over != "client"
    )  # others stand by themselves
    if settings.margin == "strict" and is_mean:
        problems += _without_margin(evidence.values)
    values = list(evidence.values)
    if rule.over == "max":
        values = sorted(values, key=lambda value: value.value - value.base)[-1:]
    limits = [(value, *_compared(rule, settings, value)) for value in values]
    violations = sum(rule.holds_for(left, right) for _, left, right in limits)
    ranked = sorted(limits, key=lambda it: it[1] - it[2], reverse=rule.upward)
    worst = ranked[0][0] if ranked else None
    # The interval in a table of games is its own.
    with_margin = worst is not None and worst.low is not None and rule.family != GAME
    return Verdict(
        rule=rule,
        word="fail" if violations else "open" if problems else "pass",
        worst=worst,
        compared=len(values),
        violations=violations,
        problems=tuple(problems),
        notes=tuple(evidence.notes),
        confidence=confidence if with_margin else 0.95 if worst and worst.low is not None else None,
    )


def _compared(rule: Rule, settings: Check, value: Value) -> tuple[float, float]:
    """Return what is compared with what: the value with its limit, or an end of its margin."""
    ends = {"lenient": (value.low, value.high), "strict": (value.high, value.low)}
    upper, lower = ends.get(settings.margin, (None, None))
    end = upper if rule.upward else lower
    return (value.value, value.base + rule.number) if end is None else (end, rule.number)


def _without_margin(values: Iterable[Value]) -> list[str]:
    lacking = [value for value in values if value.low is None or value.high is None]
    if not lacking:
        return []
    first = lacking[0]
    return [f"{len(lacking)} values have no margin of error, such as {first.title} ({first.of})"]


def _pairs(ledger: pa.Table | None, column: str) -> dict[str, set[Any]]:
    """Return family → the values of a column."""
    names: dict[str, set[Any]] = {}
    if ledger is not None:
        for row in ledger.group_by(["family", column], use_threads=False).aggregate([]).to_pylist():
            names.setdefault(row["family"], set()).add(row[column])
    return names
