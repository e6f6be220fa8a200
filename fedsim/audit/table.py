"""Audits of one mechanism: many uploads with and without each canary, and the claim beside them.

canaries/SETTING.safetensors          the records that were crafted
scores/SETTING/CANARY/…safetensors    scores of runs; a chunk that has its file is not run again
audit.parquet configs.txt audit.html  the table, what was audited, and the report
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from adversary.auditing import METHODS
from adversary.auditing.bonferroni import most_anywhere
from adversary.auditing.features import Features
from adversary.auditing.finding import Finding
from adversary.auditing.rates import most_epsilon, trials_for
from adversary.auditing.trials import Trials
from fedsim.audit.canary_names import canary_names
from fedsim.audit.links import check_links
from fedsim.audit.neighbours import opposites
from fedsim.audit.result import AuditResult
from fedsim.audit.rows import Measured, Row, is_test, write_rows
from fedsim.audit.run_all import run_all
from fedsim.audit.runs import canary_runs
from fedsim.audit.setup import Setup, prepare, sent_weights
from fedsim.audit.statistic import statistic
from fedsim.config import Cell, Config, Engine
from fedsim.core.errors import ConfigError
from fedsim.core.files import write_whole
from fedsim.core.rng import threads
from fedsim.run.links import refuse_links

LARGE = 25.0  # an ε that no number of runs refutes without assumptions
TABLE, CONFIGS, REPORT = "audit.parquet", "configs.txt", "audit.html"

OnRuns = Callable[[str, int, int], None]


def audits(
    cells: Sequence[Cell],
    out: Path,
    *,
    run: Path | None = None,
    engine: Engine | None = None,
    on_runs: OnRuns = lambda *_: None,
    on_result: Callable[[AuditResult], None] = lambda _: None,
) -> list[AuditResult]:
    """Audit every config, and go on where an earlier call was stopped.

    Args:
        cells: Configs and what they are called.
        out: Folder of the table, the canaries and the scores.
        run: A recording, whose weights are audited; without, a model is trained first.
        engine: Ray, to do runs of a mechanism in parallel; in this process without.
        on_runs: Called with a canary, runs done and runs in all.
        on_result: Called with every setting that is done.

    Raises:
        ConfigError: A config cannot be audited, or the folder holds another audit.
        BadRecording: There is a link in the folder.
        RunStopped: A canary moves nothing, or a user's mechanism fails.
    """
    refuse_links(out)
    text = "\n".join(f"{cell.name}: {_decisive(cell.config, run)}" for cell in cells)
    note = out / CONFIGS
    if note.exists() and note.read_text(encoding="utf-8") != text:
        prepare(cells[0].config, run)  # what is wrong with it comes first
        raise ConfigError(
            f"{out}: must be this audit's folder or not exist, got another audit; name one by --out"
        )
    results: list[AuditResult] = []
    for cell in cells:
        with threads(cell.config.engine.threads):
            setting = _Setting(cell.name, prepare(cell.config, run), out, run)
            write_whole(note, lambda path: path.write_text(text, encoding="utf-8"))
            results.append(setting.audited(engine, on_runs, settings=len(cells)))
        write_rows([row for result in results for row in result.rows], out / TABLE)
        on_result(results[-1])
    return results


def _decisive(config: Config, run: Path | None) -> str:
    """Return what decides the scores, as text: the config, and a recording's weights."""
    text = config.model_copy(update={"versions": {}}).model_dump_json(exclude_none=True)
    if run is None:
        return text
    paths = sent_weights(run, config.audit.rounds)
    digest = hashlib.blake2b(b"".join(path.read_bytes() for path in paths), digest_size=8)
    rounds = ", ".join(path.parent.name for path in paths)
    return f"{text} at the weights of {run.absolute()}, rounds {rounds} ({digest.hexdigest()})"


@dataclass(frozen=True, eq=False)
class _Setting:
    """One of the settings that are audited.

    Attributes:
        name: The name of its config.
        setup: What is audited.
        out: Folder of the audit.
        recording: Whose weights are audited, if any.
    """

    name: str
    setup: Setup
    out: Path
    recording: Path | None

    def audited(self, engine: Engine | None, on_runs: OnRuns, *, settings: int) -> AuditResult:
        """Audit this setting, one of some."""
        setup, audit = self.setup, self.setup.config.audit
        measured = self._measured(engine, on_runs)
        evidence = [(each.runs.trials(), each.runs.features()) for each in measured]
        findings = [_findings(setup, *each, audit.confidence) for each in evidence]
        tests = sum(is_test(finding, setup.claim) for each in findings for finding in each)
        # The command fails if any bound is refuted, or any defense by itself: together one more.
        share = (1 - audit.confidence) / ((tests + 1) * settings)
        level = 1 - share
        rows: list[Row] = []
        for each, runs, at_confidence in zip(measured, evidence, findings, strict=True):
            joint = _joint(setup, *runs, level, at_confidence)
            rows += [each.row(*pair) for pair in zip(at_confidence, joint, strict=True)]
        return AuditResult(
            setting=self.name,
            rows=rows,
            checks=check_links(
                setup.config.defense,
                setup.model,
                setup.mechanism.local,
                setup.config.audit.batch_size,
                share,
            ),
            claim=setup.claim,
            needed=_needed(setup, level),
            weights=self._weights(),
        )

    def _measured(self, engine: Engine | None, on_runs: OnRuns) -> list[Measured]:
        """Do the runs of every canary."""
        setup, measured = self.setup, []
        takes_any, about = setup.mechanism.takes_any, (setup.dataset, setup.relation)
        for name in canary_names(setup.config.audit, *about, takes_any=takes_any):
            begun = time.perf_counter()
            runs = canary_runs(setup, self.name, name, self.out)
            run_all(runs, self.recording, engine, on_runs)
            measured.append(partial(Measured, runs, seconds=time.perf_counter() - begun))
        widest = _widest(setup)
        return [each(widest=widest) for each in measured]

    def _weights(self) -> str:
        audit = self.setup.config.audit
        if self.recording is None:
            return f"a model after {audit.steps} steps"
        paths = sent_weights(self.recording, audit.rounds)
        numbers = " and ".join(str(int(path.parent.name)) for path in paths)
        return f"round {numbers} of {self.recording}"


def _findings(setup: Setup, trials: Trials, features: Features, confidence: float) -> list[Finding]:
    """Return what runs show by every method that goes with the threshold of the config."""
    rule = setup.config.audit.threshold
    options = {"relation": setup.relation, "delta": setup.claim.delta, "confidence": confidence}
    of_trials = [
        method.tests[rule](trials, **options) for method in METHODS.values() if rule in method.tests
    ]
    if setup.claim.sampled is not None:
        of_trials += [
            method.of_sampled(trials, setup.claim, confidence)
            for method in METHODS.values()
            if method.of_sampled
        ]
    features.check()
    of_features = [
        method.of_features(features, **options) for method in METHODS.values() if method.of_features
    ]
    return of_trials + of_features


def _joint(
    setup: Setup, trials: Trials, features: Features, level: float, alone: Sequence[Finding]
) -> list[Finding]:
    """Return what runs show at the level at which all hold together: 0 of too few runs."""
    if most_epsilon(min(trials.counts) // 2, delta=setup.claim.delta, confidence=level) > 0:
        return _findings(setup, trials, features, level)
    return [replace(finding, epsilon=0.0, statistic=None) for finding in alone]


def _needed(setup: Setup, level: float) -> int | None:
    """Return how many trials of each hypothesis could refute the claim without assumptions."""
    claim, rule = setup.claim, setup.config.audit.threshold
    if claim.epsilon is None or claim.epsilon > LARGE:
        return None
    if rule != "bonferroni":
        level = (1 + level) / 2 if rule == "multi-split" else level
        least = trials_for(claim.epsilon, delta=claim.delta, confidence=level)
        return least if rule == "fixed" else 2 * least
    least = 1
    while most_anywhere(least, delta=claim.delta, confidence=level) <= claim.epsilon:
        least *= 2
    return least


def _widest(setup: Setup) -> float | None:
    pair = opposites(setup)
    return None if pair is None else float(statistic(setup.observed, pair).distances[0])
