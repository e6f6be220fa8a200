"""What a run shows, as facts for an auditor: attacks, defenses, audits, and what is missing."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

import defenses
from adversary.attacks import ATTACKS
from adversary.grading.families import FAMILIES
from defenses import Promise
from fedsim.audit import table as audits
from fedsim.check.gate import Gate, check
from fedsim.config import Config, Part
from fedsim.core.catalog import nothing_imported
from fedsim.core.errors import ConfigError
from fedsim.core.tables import frame
from fedsim.games import table as games
from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.finding import Finding
from fedsim.report.select import numbers, select
from fedsim.report.verdict import Verdict, verdict
from fedsim.run.outcomes import Answers
from fedsim.run.run_folder import RunFolder
from strategies.tape import recorded_rounds


@dataclass(frozen=True)
class Facts:
    """What a run shows.

    Attributes:
        folder: The run.
    """

    folder: RunFolder

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.folder.config

    @cached_property
    def run(self) -> RunData:
        """The run's tables."""
        return RunData(self.folder)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the run."""
        return verdict(self.run)

    @cached_property
    def findings(self) -> Mapping[str, Finding]:
        """Family → the attack that is most clearly above its blind guess."""
        return {finding.family: finding for finding in self.verdict.findings}

    @cached_property
    def answers(self) -> Sequence[Answers]:
        """What became of every attack that looks at updates."""
        return [each for each in self.run.answers.values() if not each.baseline]

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """Title → the values of an attack that was graded."""
        return {curve.title: curve for curve in self.run.curves}

    @property
    def families(self) -> set[str]:
        """The families of which an attack answered an update and was graded."""
        return {curve.family for curve in self.run.curves if not curve.baseline}

    @property
    def not_run(self) -> dict[str, list[str]]:
        """Family → built-in attacks that were not run."""
        names = {each.attack for each in self.run.answers.values()}
        missing: dict[str, list[str]] = {}
        for name, attack in ATTACKS.items():
            if name not in names and not attack.baseline:
                missing.setdefault(attack.family, []).append(name)
        return missing

    @property
    def untouched(self) -> list[str]:
        """The families of which no attack was run."""
        return [name for name in FAMILIES if name not in {each.family for each in self.answers}]

    @property
    def recorded(self) -> list[int]:
        """The rounds of which uploads were kept."""
        return recorded_rounds(self.folder.path)

    @property
    def never_attacked(self) -> int:
        """How many clients of the federation no attack saw an upload of; 0 of another app."""
        sums = self.config.federation.secure_aggregation
        if self.config.foreign or sums or not self.answers:
            return 0
        return max(0, self.config.federation.clients - len(self.run.clients))

    @property
    def unfinished(self) -> str | None:
        """Why the run is not whole; None if it is."""
        if self.config.foreign:
            return None
        done, of = max(self.folder.finished_rounds, default=0), self.config.federation.rounds
        return f"{done} of {of} rounds are finished" if done < of else None

    def promise(self, part: Part) -> Promise | None:
        """Return what a defense promises by itself; None of a user's own, which is not imported."""
        return _promise((part,))

    @cached_property
    def whole_promise(self) -> Promise | None:
        """What all defenses together promise; None if that is not known."""
        return _promise(self.config.defense) if self.config.defense else None

    @cached_property
    def epsilon(self) -> tuple[float, int] | None:
        """The largest client's ε, and the round after which it is; None if there is none for all.

        It is worked out in rounds that are evaluated and in the last one: a stopped run may have
        gone on beyond.
        """
        rows = select(frame(self.run.metrics), metric="epsilon")
        rounds, values = numbers(rows, "round"), numbers(rows, "value")
        last = rounds.max(initial=0)
        values = values[rounds == last]
        if not len(values) or not np.isfinite(values).all():
            return None
        return float(values.max()), int(last)

    @property
    def audited(self) -> bool:
        """Whether canaries in the run gave a number, or there is an audit beside it."""
        canaries = self.run.audits["value"]
        return canaries.null_count < len(canaries) or self.audit_folder is not None

    @property
    def audit_folder(self) -> Path | None:
        """The folder of `fedsim audit RUN`; None without."""
        return _with(self.folder.path / "audit", audits.TABLE)

    @property
    def games_folder(self) -> Path | None:
        """A folder of games in the run; None without."""
        return _with(self.folder.path / "game", games.TABLE)

    @cached_property
    def gate(self) -> Gate | None:
        """The verdicts on the rules of the run's config; None without rules."""
        rules = self.config.check
        return check(self.folder.path) if rules and rules.fail_if else None


def _promise(parts: Sequence[Part]) -> Promise | None:
    with nothing_imported():
        try:
            return defenses.build(parts).promise
        except ConfigError:
            return None


def _with(folder: Path, table: str) -> Path | None:
    return folder if (folder / table).is_file() else None
