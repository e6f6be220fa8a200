"""What an audit of one setting shows: rows, checks of each defense, and a verdict in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from adversary.auditing.claim import Claim
from fedsim.audit.links import Check
from fedsim.audit.rows import Row


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """One audited setting.

    Attributes:
        setting: The name of the config.
        rows: A row per canary and method.
        checks: Of each defense by itself.
        claim: What the mechanism claims.
        needed: How many trials of each hypothesis could refute the claim without assumptions; None
            without a claim.
        weights: Whose weights the model has, in words.
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
        rounds += " of which only the last model is seen" if row.view == "last" else ""
        text = f"Neighbours: {row.relation}. {batch}, {rounds}, {row.trials} runs of a canary"
        text += f", at the weights of {self.weights}.\n"
        if claim.epsilon is None:
            text += "Claim: none of these neighbours, so that nothing can be refuted."
        else:
            text += f"Claim: ε = {claim.epsilon:.3g} at δ = {claim.delta:g} ({claim.relation})."
        return text + (f" Not to be compared: {claim.beside}." if claim.beside else "")

    @property
    def blunt(self) -> str | None:
        """How many runs could refute the claim at all, if these could not."""
        trials = self.rows[0].trials // 2
        assumed = any(row.joint is not None and row.assumes for row in self.rows)
        if self.needed is None or assumed or trials >= self.needed:
            return None
        return (
            "No bound here can exceed the claim, however the runs come out: audit.trials must be "
            f"at least {self.needed}"
        )

    @property
    def conclusion(self) -> str | None:
        """That the claim stands, and how much of it was shown; None if it is refuted, or none."""
        claim = self.claim
        if claim.epsilon is None or self.verdict:
            return None
        best = max(self.rows, key=lambda row: row.joint or 0.0)
        text = (
            f"The claim stands: ε = {claim.epsilon:.3g} at δ = {claim.delta:g} ({claim.relation})."
        )
        if not best.joint:
            return f"{text} The runs showed nothing of it."
        return (
            f"{text} The runs showed ε ≥ {best.joint:.3g} of it (canary '{best.canary}', "
            f"{best.method}, all together {100 * (best.confidence or 0):g} %)."
        )

    @property
    def verdict(self) -> str | None:
        """Why a mechanism is not what it claims; None if nothing says so."""
        where = "" if self.setting == "run" else f"{self.setting}: "
        broken = "; ".join(f"defense {check.link} {check.measured}" for check in self.broken)
        if not self.refuted:
            return f"{where}no bound exceeds the claim, but {broken}" if broken else None
        worst = max(self.refuted, key=lambda row: row.joint or 0.0)
        looked = f", by '{worst.statistic}'" if worst.statistic else ""
        whole = (
            "every defense by itself is what it claims: it is how they are composed or accounted"
            if self.checks
            else "the mechanism as a whole is not what it claims"
        )
        return (
            f"{where}claims ε = {worst.claimed:.3g} ({worst.claimed_relation}), but canary "
            f"'{worst.canary}' shows ε ≥ {worst.joint:.3g} at δ = {worst.delta:g} ({worst.method}, "
            f"{worst.guarantee}{looked}, all together {100 * (worst.confidence or 0):g} %); "
            f"{broken or whole}"
        )
