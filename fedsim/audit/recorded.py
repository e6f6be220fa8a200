"""What the canaries of a recorded run show, at a level at which all of its bounds hold together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adversary.auditing.finding import METRICS, Guarantee
from fedsim.audit.rounds import audit_round, is_due
from fedsim.core.rows import Leak
from fedsim.run.device import on_cpu
from fedsim.run.prepare import prepare
from fedsim.run.public_base import load_base
from fedsim.run.run_folder import RunFolder


@dataclass(frozen=True)
class Recorded:
    """The last audited round of a run.

    Attributes:
        round: Its number.
        theory: The ε that is claimed until then.
        bounds: Method → ε that it shows, each at the run's own confidence.
        joint: The same at the level at which all of them hold together.
        confidence: Of all of them.
    """

    round: int
    theory: float
    bounds: Mapping[str, float]
    joint: Mapping[str, float]
    confidence: float

    @property
    def verdict(self) -> str | None:
        """Why the run's clients are not what they claim; None where no bound says so."""
        method = max(self.joint, key=lambda name: self.joint[name])
        if self.joint[method] <= self.theory:
            return None
        return (
            f"the recorded clients claim ε = {self.theory:.3g} until round {self.round}, but "
            f"{method} shows ε ≥ {self.joint[method]:.3g} (bound, all together "
            f"{100 * self.confidence:g} %)"
        )


def recorded(run: Path, allow: Iterable[str] = ()) -> Recorded | None:
    """Return what canaries in a run show until its last audited round; None without any.

    Args:
        run: Its folder.
        allow: Modules, paths and addresses that its config may use, if you did not write it.

    Raises:
        BadRecording: A file of the run is damaged, or its config names what is not allowed.
    """
    folder = RunFolder(run)
    folder.check_trusted(allow)
    folder.check_files()
    plan = prepare(on_cpu(folder.config))
    load_base(run, plan.model)
    due = [number for number in folder.finished_rounds if number and is_due(plan, number)]
    if not due:
        return None
    bounds = _bounds(audit_round(plan, folder, due[-1]).leaks)
    if not bounds:
        return None
    audit = plan.config.audit
    level = 1 - (1 - audit.confidence) / len(bounds)
    surer = audit.model_copy(update={"confidence": level})
    again = prepare(plan.config.model_copy(update={"audit": surer}))
    load_base(run, again.model)
    joint = _bounds(audit_round(again, folder, due[-1]).leaks)
    value = lambda rows: {row.attack: float(row.value or 0.0) for row in rows}
    return Recorded(
        round=due[-1],
        theory=float(bounds[0].ceiling or 0.0),
        bounds=value(bounds),
        joint=value(joint) or value(bounds),
        confidence=audit.confidence,
    )


def _bounds(rows: list[Leak]) -> list[Leak]:
    bound = METRICS[Guarantee.BOUND]
    return [row for row in rows if row.metric == bound and row.value is not None]
