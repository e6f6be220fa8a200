"""The section of the config that audits read, in a run and in `fedsim audit`."""

from typing import Annotated

from pydantic import Field, model_validator

from fedsim.config.fields import Count, Names, Natural, Positive, Section

Chance = Annotated[float, Field(gt=0, lt=1, strict=True)]
THRESHOLDS = ("fixed", "split", "bonferroni")


class Audit(Section):
    """How private it really is: what canaries give away, beside what is claimed.

    In a run, the first `clients` clients consent to carry canaries, and every `every`-th round is
    audited; where the clients' defense is DP-SGD, each of them carries `records` records that are
    in its data or not, otherwise its whole update is a canary.

    `fedsim audit` makes `trials` uploads of `rounds` rounds with each of two neighbouring batches
    of `batch_size` records. They differ in the value of `column` in one record, or without a
    column in whether the record is there at all; `canary` says how the record is found, among
    `candidates` of the data. The model has been trained for `steps` steps before.

    `mechanism` is the user's own in place of the config's defenses, `package.module:function`;
    it claims `claim` (ε at δ).
    """

    confidence: Chance = 0.95
    delta: Chance | None = None
    clients: Natural = 0
    every: Count = 1
    records: Count = 50
    column: str | None = None
    values: tuple[str, str] | None = None
    canary: Names = ()
    trials: Count = 1000
    rounds: Count = 1
    batch_size: Count = 1
    candidates: Count = 3000
    steps: Natural = 400
    threshold: str = "fixed"
    mechanism: str | None = None
    claim: Positive | None = None

    @model_validator(mode="after")
    def _claimed(self) -> "Audit":
        if self.threshold not in THRESHOLDS:
            raise ValueError(
                f"threshold: must be {', '.join(THRESHOLDS[:-1])} or {THRESHOLDS[-1]}, because one "
                "that is chosen on the scores that it certifies shows too much, "
                f"got '{self.threshold}'"
            )
        if self.mechanism is not None and self.claim is None:
            raise ValueError(
                f"claim: must say which ε audit.mechanism claims, got none for '{self.mechanism}'"
            )
        if self.values is not None and (self.column is None or len(set(self.values)) < 2):
            raise ValueError(f"values: must be two values of audit.column, got {self.values}")
        return self
