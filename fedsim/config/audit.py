"""The section of the config that audits read, in a run and in `fedsim audit`."""

from typing import Annotated

from pydantic import Field, model_validator

from fedsim.config.fields import Count, Names, Natural, Positive, Section

Chance = Annotated[float, Field(gt=0, lt=1, strict=True)]
THRESHOLDS = ("fixed", "split", "multi-split", "bonferroni", "hull")
VIEWS = ("rounds", "last")
RELATIONS = ("add-remove", "zero", "replace", "attribute", "client")
COVER_ATTRIBUTE = ("replace", "attribute", "client")  # claims that say something of a column


class Audit(Section):
    """How private the updates really are: what canaries show, beside what the defense claims.

    In a run, the first `clients` clients consent to carry canaries, and every `every`-th round is
    audited. If the clients' defense is DP-SGD, each of them carries `records` canary records, and
    each record is in its data or not. With any other defense its whole update is a canary.

    `fedsim audit` makes `trials` uploads of `rounds` rounds with each of two neighbouring batches
    of `batch_size` records. With a `column` they differ in its value in one record, otherwise in
    whether the record is there at all. `canary` says how the record is chosen, among `candidates`
    of the data. The model is trained for `steps` steps before.
    """

    confidence: Chance = 0.95
    """Confidence of each bound, taken by itself."""
    delta: Chance | None = None
    """δ of the ε that is audited; the defense's own if omitted."""
    clients: Natural = 0
    """In a run: number of clients that carry canaries; 0 for no audit."""
    every: Count = 1
    """In a run: every so many rounds are audited."""
    records: Count = 50
    """In a run with DP-SGD: number of canary records of each of these clients."""
    column: str | None = None
    """Categorical input that differs in one record; the whole record if omitted."""
    values: tuple[str, str] | None = None
    """Two values of `column` that are told apart; its first two if omitted."""
    canary: Names = ()
    """Canaries: average, natural, in-domain, free, gradient, canife, opposite; all that fit if
    empty."""
    trials: Count = 1000
    """Number of uploads with the canary, and the same number without."""
    rounds: Count = 1
    """Number of rounds of one client in a trial."""
    view: str = "rounds"
    """What is seen of them: rounds (every upload) or last (the last model)."""
    batch_size: Count = 1
    """Number of records in the batch, the canary included."""
    candidates: Count = 3000
    """Number of natural records among which a canary is looked for."""
    steps: Natural = 400
    """Number of training steps before the audit."""
    threshold: str = "fixed"
    """Choice of Clopper–Pearson's threshold: fixed, split, multi-split, bonferroni or hull."""
    mechanism: str | None = None
    """Your own mechanism in place of the defenses: `package.module:function`."""
    claim: Positive | None = None
    """The ε that `mechanism` claims, at `delta`."""
    relation: str | None = None
    """Which neighbours `claim` is about: add-remove, zero, replace, attribute or client."""
    mechanism_type: str | None = None
    """gaussian if `mechanism` adds Gaussian noise last; nothing is assumed if omitted."""

    @model_validator(mode="after")
    def _claimed(self) -> "Audit":
        if self.threshold not in THRESHOLDS:
            raise ValueError(
                f"threshold: must be {', '.join(THRESHOLDS[:-1])} or {THRESHOLDS[-1]}, because one "
                "that is chosen on the scores that it certifies shows too much, "
                f"got '{self.threshold}'"
            )
        if self.view not in VIEWS:
            raise ValueError(f"view: must be {' or '.join(VIEWS)}, got '{self.view}'")
        if self.mechanism is not None and self.claim is None:
            raise ValueError(
                f"claim: must say which ε audit.mechanism claims, got none for '{self.mechanism}'"
            )
        self._declared()
        if self.values is not None and (self.column is None or len(set(self.values)) < 2):
            raise ValueError(f"values: must be two values of audit.column, got {self.values}")
        return self

    def _declared(self) -> None:
        """Refuse declarations that do not go with a mechanism, its claim, or the neighbours."""
        for name, value in (("relation", self.relation), ("mechanism_type", self.mechanism_type)):
            if value is not None and self.mechanism is None:
                raise ValueError(
                    f"{name}: must stand beside audit.mechanism; defenses state their own, "
                    f"got '{value}'"
                )
        if self.mechanism is None:
            return
        if self.mechanism_type not in (None, "gaussian"):
            raise ValueError(
                f"mechanism_type: must be gaussian or omitted, got '{self.mechanism_type}'"
            )
        if self.relation not in RELATIONS:
            raise ValueError(
                f"relation: must say which neighbours audit.claim is about: "
                f"{', '.join(RELATIONS[:-1])} or {RELATIONS[-1]}, got {self.relation or 'none'}"
            )
        if self.column is not None and self.relation not in COVER_ATTRIBUTE:
            raise ValueError(
                "relation: must be replace, attribute or client where audit.column is replaced: a "
                f"claim is never held against other neighbours, got '{self.relation}'"
            )
        if self.column is None and self.relation == "attribute":
            raise ValueError("relation: must go with audit.column, got 'attribute' without one")
