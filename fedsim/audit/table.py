"""Audits of one mechanism: many uploads with and without each canary, and the claim beside them.

canaries/SETTING.safetensors          the records that were found
scores/SETTING/CANARY/…safetensors    scores of runs, in chunks: what is there is not run again
audit.parquet configs.txt audit.html  the table, what was audited, and the report
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adversary.auditing import two_hypotheses as two
from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.rates import trials_for
from defenses.dp_sgd import num_steps
from defenses.promise import gaussian_epsilon
from fedsim.audit.links import Check, check_links
from fedsim.audit.mechanism import statistic
from fedsim.audit.setup import Claim, Setup, canary_names, opposites, prepare, sent_weights
from fedsim.audit.trials import Scores, Trials, run_all, trials
from fedsim.config import Cell, Config, Engine
from fedsim.core.errors import ConfigError
from fedsim.core.files import write_whole
from fedsim.core.rng import threads

LARGE = 25.0  # an ε that no number of runs refutes without assumptions
TABLE, CONFIGS, REPORT = "audit.parquet", "configs.txt", "audit.html"
SCHEMA = pa.schema(
    [
        ("setting", pa.string()), ("canary", pa.string()), ("relation", pa.string()),
        ("batch_size", pa.int32()), ("rounds", pa.int32()), ("apart", pa.float64()),
        ("exact", pa.float64()), ("method", pa.string()), ("guarantee", pa.string()),
        ("confidence", pa.float64()), ("assumes", pa.string()), ("epsilon", pa.float64()),
        ("delta", pa.float64()), ("mu", pa.float64()), ("most", pa.float64()),
        ("trials", pa.int32()), ("claimed", pa.float64()), ("claimed_relation", pa.string()),
        ("joint", pa.float64()), ("refutes", pa.bool_()), ("seconds", pa.float64()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One number of an audit.

    Attributes:
        apart: Δ/C, how far the canary moves an update; the most that is claimed is 1 for a record
            that is there or not, and 2 for one that is replaced.
        exact: ε that a Gaussian mechanism as claimed would have against this canary; None where it
            is none.
        joint: The bound at the level that all bounds of the setting hold at together; what a claim
            is refuted by. None of what is no bound, or assumes what the claim does not.
        claimed: ε that the mechanism claims for the matching neighbours; None where nothing.
    """

    setting: str
    canary: str
    relation: str
    batch_size: int
    rounds: int
    apart: float | None
    exact: float | None
    method: str
    guarantee: str
    confidence: float | None
    assumes: str | None
    epsilon: float
    delta: float
    mu: float | None
    most: float | None
    trials: int
    claimed: float | None
    claimed_relation: str | None
    joint: float | None
    refutes: bool
    seconds: float


@dataclass(frozen=True)
class Told:
    """What there is to say of one audited setting.

    Attributes:
        needed: How many trials of each hypothesis could refute the claim without assumptions; None
            where nothing is claimed.
        weights: Whose they were, in words.
    """

    setting: str
    rows: Sequence[Row]
    checks: Sequence[Check]
    claim: Claim
    needed: int | None
    weights: str

    @property
    def refuted(self) -> list[Row]:
        """The bounds that exceed the claim."""
        return [row for row in self.rows if row.refutes]

    @property
    def broken(self) -> list[Check]:
        """The links that are not what they claim."""
        return [check for check in self.checks if not check.holds]

    @property
    def claimed(self) -> str:
        """What is claimed, of which neighbours, and what is no measure of this audit."""
        row, claim = self.rows[0], self.claim
        batch = f"{row.batch_size} record{'s' * (row.batch_size > 1)}"
        rounds = f"{row.rounds} round{'s' * (row.rounds > 1)}"
        said = f"Neighbours: {row.relation}. {batch}, {rounds}, {row.trials} runs of a canary"
        said += f", at the weights of {self.weights}.\n"
        if claim.epsilon is None:
            said += "Claim: none of these neighbours, so that nothing can be refuted."
        else:
            said += f"Claim: ε = {claim.epsilon:.3g} at δ = {claim.delta:g} ({claim.relation})."
        return said + (f" Not to be compared: {claim.beside}." if claim.beside else "")

    @property
    def blunt(self) -> str | None:
        """How many runs could refute the claim at all, where these could not."""
        trials = self.rows[0].trials // 2
        assumed = any(row.joint is not None and row.assumes for row in self.rows)
        if self.needed is None or assumed or trials >= self.needed:
            return None
        return (
            "No bound here can exceed the claim, however the runs come out: audit.trials must be "
            f"at least {self.needed}"
        )

    @property
    def verdict(self) -> str | None:
        """Why a mechanism is not what it claims; None where nothing says so."""
        where = "" if self.setting == "run" else f"{self.setting}: "
        broken = "; ".join(f"defense {check.link} {check.said}" for check in self.broken)
        if not self.refuted:
            return f"{where}no bound exceeds the claim, but {broken}" if broken else None
        worst = max(self.refuted, key=lambda row: row.joint or 0.0)
        whole = (
            "every defense by itself is what it claims: it is how they are composed or accounted"
            if self.checks
            else "the mechanism as a whole is not what it claims"
        )
        return (
            f"{where}claims ε = {worst.claimed:.3g} ({worst.claimed_relation}), but canary "
            f"'{worst.canary}' shows ε ≥ {worst.joint:.3g} at δ = {worst.delta:g} ({worst.method}, "
            f"{worst.guarantee}, all together {100 * (worst.confidence or 0):g} %); "
            f"{broken or whole}"
        )


def audits(
    cells: Sequence[Cell],
    out: Path,
    *,
    run: Path | None = None,
    engine: Engine | None = None,
    on_runs: Callable[[str, int, int], None] = lambda *_: None,
    on_told: Callable[[Told], None] = lambda _: None,
) -> list[Told]:
    """Audit every config, and go on where an earlier call was stopped.

    Args:
        cells: Configs and what they are called.
        out: Folder of the table, the canaries and the scores.
        run: A recording, whose weights are audited; without, a model is trained first.
        engine: Ray, to do runs of a mechanism in parallel; in this process without.
        on_runs: Called with a canary, runs done and runs in all.
        on_told: Called with every setting that is done.

    Raises:
        ConfigError: A config cannot be audited, or the folder holds another audit.
        RunStopped: A canary moves nothing, or a user's mechanism fails.
    """
    told = "\n".join(f"{cell.name}: {_decisive(cell.config, run)}" for cell in cells)
    note = out / CONFIGS
    if note.exists() and note.read_text() != told:
        prepare(cells[0].config, run)  # what is wrong with it comes first
        raise ConfigError(
            f"{out}: must be this audit's folder or not exist, got another audit; name one by --out"
        )
    found: list[Told] = []
    for cell in cells:
        with threads(cell.config.engine.threads):
            setup = prepare(cell.config, run)
            write_whole(note, lambda path: path.write_text(told))
            found.append(_audited(cell, setup, out, run, engine, on_runs, settings=len(cells)))
        rows = [asdict(row) for one in found for row in one.rows]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        write_whole(out / TABLE, partial(pq.write_table, table))
        on_told(found[-1])
    return found


def _decisive(config: Config, run: Path | None) -> str:
    text = config.model_copy(update={"versions": {}}).model_dump_json(exclude_none=True)
    if run is None:
        return text
    paths = sent_weights(run, config.audit.rounds)
    digest = hashlib.blake2b(b"".join(path.read_bytes() for path in paths), digest_size=8)
    rounds = ", ".join(path.parent.name for path in paths)
    return f"{text} at the weights of {run.absolute()}, rounds {rounds} ({digest.hexdigest()})"


def _audited(
    cell: Cell,
    setup: Setup,
    out: Path,
    run: Path | None,
    engine: Engine | None,
    on_runs: Callable[[str, int, int], None],
    *,
    settings: int,
) -> Told:
    """Audit one of some settings."""
    names = canary_names(setup.config, setup.dataset, setup.mechanism)
    found, tests = [], {}
    for name in names:
        begun = time.perf_counter()
        of = trials(setup, cell.name, name, out)
        run_all(of, run, engine, on_runs)
        tests[name] = _test(setup, *of.scores())
        found.append((of, time.perf_counter() - begun))
    confidence = setup.config.audit.confidence
    said = {name: test(confidence) for name, test in tests.items()}
    count = sum(_is_test(one, setup.claim) for ones in said.values() for one in ones)
    level = 1 - (1 - confidence) / max(1, count * settings)  # the command fails if any is refuted
    widest = _widest(setup)
    rows: list[Row] = []
    for of, seconds in found:
        measured = _Measured(of, widest, seconds)
        joint = {one.method: one for one in tests[of.canary](level)}
        rows += [_row(measured, one, joint[one.method]) for one in said[of.canary]]
    checks = check_links(setup.config.defense, setup.model, setup.mechanism.local)
    weights = f"a model after {setup.config.audit.steps} steps"
    if run is not None:
        numbers = [str(int(p.parent.name)) for p in sent_weights(run, setup.config.audit.rounds)]
        weights = f"round {' and '.join(numbers)} of {run}"
    return Told(cell.name, rows, checks, setup.claim, _needed(setup, level), weights)


@dataclass(frozen=True, eq=False)
class _Measured:
    """A canary after its runs.

    Attributes:
        widest: How far apart two uploads are whose gradients are opposite and as long as may be;
            None where that is not known.
    """

    trials: Trials
    widest: float | None
    seconds: float

    @property
    def apart(self) -> float | None:
        """Δ/C, over several rounds the mean."""
        distances = self.trials.score.distances
        return float(np.sqrt((distances**2).mean())) / (self.widest / 2) if self.widest else None

    @property
    def exact(self) -> float | None:
        """The ε that the claimed Gaussian mechanism has against the canary, of a single step."""
        setup = self.trials.setup
        claim, local = setup.claim, setup.mechanism.local
        if claim.mu is None or claim.relation is None or not self.widest:
            return None
        if num_steps(setup.config.audit.batch_size, local) > 1:
            return None
        most = self.widest if claim.relation.replaces else self.widest / 2
        distances = self.trials.score.distances
        return gaussian_epsilon(claim.mu * float(np.sqrt((distances**2).sum())) / most, claim.delta)


def _row(measured: _Measured, one: Finding, joint: Finding) -> Row:
    of, asked = measured.trials, measured.trials.setup.config.audit
    claim, tests = of.setup.claim, _is_test(one, of.setup.claim)
    refutes = False
    if tests and claim.epsilon is not None and claim.relation is not None:
        refutes = joint.exceeds(claim.epsilon, claim.relation)
    return Row(
        setting=of.setting, canary=of.canary, relation=of.setup.relation,
        batch_size=asked.batch_size, rounds=asked.rounds, apart=measured.apart,
        exact=measured.exact, method=one.method, guarantee=one.guarantee.value,
        confidence=one.confidence, assumes=one.assumes, epsilon=one.epsilon, delta=one.delta,
        mu=one.mu, most=one.most if np.isfinite(one.most) else None, trials=one.trials,
        claimed=claim.epsilon, claimed_relation=claim.relation,
        joint=joint.epsilon if tests else None, refutes=refutes, seconds=measured.seconds,
    )  # fmt: skip


def _is_test(one: Finding, claim: Claim) -> bool:
    """Return whether a number can refute a claim: a bound that assumes no more than is claimed."""
    return one.guarantee is Guarantee.BOUND and (one.assumes is None or claim.mu is not None)


def _needed(setup: Setup, level: float) -> int | None:
    """Return how many trials of each hypothesis could refute the claim without assumptions."""
    claim, rule = setup.claim, setup.config.audit.threshold
    if claim.epsilon is None or claim.epsilon > LARGE:
        return None
    if rule != "bonferroni":
        least = trials_for(claim.epsilon, delta=claim.delta, confidence=level)
        return least if rule == "fixed" else 2 * least
    least = 1
    while two.most_anywhere(least, delta=claim.delta, confidence=level) <= claim.epsilon:
        least *= 2
    return least


def _widest(setup: Setup) -> float | None:
    both = opposites(setup)
    return None if both is None else float(statistic(setup.mechanism, both).distances[0])


def _test(setup: Setup, without: Scores, having: Scores) -> Callable[[float], list[Finding]]:
    """Return what the scores show, by confidence."""
    asked, delta, relation = setup.config.audit, setup.claim.delta, setup.relation

    def said(confidence: float) -> list[Finding]:
        told: dict[str, Any] = {"relation": relation, "delta": delta, "confidence": confidence}
        if asked.threshold == "bonferroni":
            return [two.bonferroni(without, having, **told)]
        if asked.threshold == "split":
            return list(reversed(two.split(without, having, **told)))
        fixed = two.Threshold(0.0)
        free, gaussian = two.certify(without, having, fixed, **told)
        anywhere = two.bonferroni(without, having, **told)
        return [gaussian, anywhere, free, two.credible(without, having, fixed, **told)]

    return said
