"""The table of an audit: a row per canary and method."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adversary.auditing.claim import Claim
from adversary.auditing.finding import DENSITY, GAUSSIAN, SAMPLED, Finding, Guarantee
from defenses.accounting import num_steps
from defenses.promise import gaussian_epsilon
from fedsim.audit.runs import CanaryRuns
from fedsim.core.files import write_whole
from fedsim.core.tables import schema_of


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of an audit.

    Attributes:
        setting: The name of the config.
        canary: The name of the canary.
        relation: The neighbours that are told apart.
        batch_size, rounds: Of the audited client.
        view: What is seen: every round's upload, or the last model.
        apart: Δ/C, how far the canary moves an update; the most that is claimed is 1 for a record
            that is there or not, and 2 for one that is replaced.
        exact: ε that a Gaussian mechanism as claimed would have against this canary; None if it
            is none.
        method, guarantee, confidence, assumes, statistic, epsilon, delta, mu, most, trials: As of
            `Finding`.
        claimed: ε that the mechanism claims for the matching neighbours; None without a claim.
        claimed_relation: The neighbours of the claim.
        joint: The bound at the level that all bounds of the setting hold at together, by which a
            claim is refuted. None for no bound, or one that assumes what the claim does not.
        refutes: Whether it is above the claim.
        seconds: That the canary took.
    """

    setting: str
    canary: str
    relation: str
    batch_size: int
    rounds: int
    view: str
    apart: float | None
    exact: float | None
    method: str
    guarantee: str
    confidence: float | None
    assumes: str | None
    statistic: str | None
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


SCHEMA = schema_of(Row)


@dataclass(frozen=True, eq=False)
class Measured:
    """A canary after its runs.

    Attributes:
        runs: Of the canary.
        widest: How far apart two uploads are whose gradients are opposite and as long as may be;
            None if that is not known.
        seconds: That the runs took.
    """

    runs: CanaryRuns
    widest: float | None
    seconds: float

    @cached_property
    def apart(self) -> float | None:
        """Δ/C, over several rounds the mean."""
        distances = self.runs.statistic.distances
        return float(np.sqrt((distances**2).mean())) / (self.widest / 2) if self.widest else None

    @cached_property
    def exact(self) -> float | None:
        """The ε that the claimed Gaussian mechanism has against the canary.

        It is known of a single step in each round, and of the last model only where gradients do
        not depend on the weights before it.
        """
        setup = self.runs.setup
        claim, local = setup.claim, setup.mechanism.local
        if claim.round_mu is None or not self.widest:
            return None
        if num_steps(setup.config.audit.batch_size, local) > 1:
            return None
        if setup.config.audit.view == "last" and not self._constant:
            return None
        widest = self.widest if claim.relation.replaces else self.widest / 2
        distance = float(np.sqrt((self.runs.statistic.distances**2).sum()))
        return gaussian_epsilon(claim.round_mu * distance / widest, claim.delta)

    @property
    def _constant(self) -> bool:
        return self.runs.neighbours.constant or self.runs.setup.config.audit.rounds == 1

    def row(self, finding: Finding, joint: Finding) -> Row:
        """Return the row of one method.

        Args:
            finding: At the confidence of the config.
            joint: At the level that all bounds of the setting hold at together.
        """
        setup, audit = self.runs.setup, self.runs.setup.config.audit
        claim, can_refute = setup.claim, is_test(finding, setup.claim)
        claimed = claim.epsilon is not None
        return Row(
            setting=self.runs.setting,
            canary=self.runs.canary,
            relation=setup.relation.value,
            batch_size=audit.batch_size,
            rounds=audit.rounds,
            view=audit.view,
            apart=self.apart,
            exact=self.exact,
            method=finding.method,
            guarantee=finding.guarantee.value,
            confidence=finding.confidence,
            assumes=finding.assumes,
            statistic=finding.statistic,
            epsilon=finding.epsilon,
            delta=finding.delta,
            mu=finding.mu,
            most=finding.most if np.isfinite(finding.most) else None,
            trials=finding.trials,
            claimed=claim.epsilon,
            claimed_relation=claim.relation.value if claimed else None,
            joint=joint.epsilon if can_refute else None,
            refutes=can_refute and refutes(joint, claim),
            seconds=self.seconds,
        )


def is_test(finding: Finding, claim: Claim) -> bool:
    """Return whether a number can refute a claim: a bound that assumes no more than is claimed."""
    granted = {None, *([DENSITY] if claim.density else ())}
    if claim.round_mu is not None:
        granted.add(GAUSSIAN)
    if claim.sampled is not None:
        granted.add(SAMPLED)
    return finding.guarantee is Guarantee.BOUND and finding.assumes in granted


def refutes(bound: Finding, claim: Claim) -> bool:
    """Return whether a bound is above what is claimed."""
    return claim.epsilon is not None and bound.exceeds(claim.epsilon, claim.relation)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write the table."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    write_whole(path, partial(pq.write_table, table))
