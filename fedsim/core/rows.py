"""The rows of a run's tables: what leaked, notes on answers, and what was measured."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["graded", "undefined", "no truth", "failed", "refused"]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One row of the ledger; larger is more leakage, for every metric.

    Attributes:
        attack: As the config calls it.
        adaptive: Whether it is the adversary that knows the clients' defense.
        client: None where the row is pooled over clients.
        value: None unless the row is graded.
        outcome: `graded`: there is a value. `undefined`: the attack answered, and the metric is
            not defined for this truth. `no truth`: the attack answered, and no truth is at hand.
            `failed`: the attack raised an error on this update. `refused`: the attack does not
            apply to this model, client or setting.
        reason: Why the attack failed or refused; of a pooled row, how many clients are left out.
            None otherwise.
        blind: The same metric for the best guess without the update.
        seconds: Wall time of the attack on this client and round; of a pooled row, on all of them.
        ceiling: The most that any attack could reach here, in closed form; None where not known.
    """

    round: int
    client: str | None
    attack: str
    family: str
    metric: str
    value: float | None
    outcome: Outcome
    blind: float | None
    seconds: float
    ceiling: float | None = None
    adaptive: bool = False
    reason: str | None = None


NoteSplit = Literal["attack", "audit"]
NoteKind = Literal["note", "failed", "refused"]


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a reader must know of one answer of an attack or an audit, or why there is none.

    Attributes:
        client: None where it is about several clients together.
        attack: The attack, or the audit's method.
        adaptive: Whether it is the adversary that knows the clients' defense.
        kind: Whether it is a remark on an answer, or why there is none (see `Leak.outcome`).
        split: Whose answer it is.
    """

    round: int
    client: str | None
    attack: str
    reason: str
    adaptive: bool = False
    kind: NoteKind = "note"
    split: NoteSplit = "attack"


@dataclass(frozen=True)
class Measure:
    """One row of `metrics.parquet`: utility, cost, or a failure with its reason."""

    round: int
    split: str
    metric: str
    value: float | None
    client: str | None = None
    reason: str | None = None
