"""What attacks cannot read of a model, said before anything is trained."""

from collections.abc import Mapping

from adversary.grading.answers import without_gradient
from adversary.labels.head import Head, NeedsModel, find_head
from adversary.workspace import Workspace
from fedsim.core.errors import NotApplicable
from fedsim.run.prepare import Plan


def unreadable(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Return why attacks will refuse every update of a plan's model: reason → their titles."""
    reading = [attack for attack in plan.attacks if attack.reads]
    head = _head_of(plan) if reading else None
    reasons: dict[str, list[str]] = {}
    for attack in reading:
        if isinstance(head, str):
            reasons.setdefault(head, []).append(attack.title)
    for attack in plan.attacks:
        if reason := without_gradient(attack, plan.auxiliary):
            reasons.setdefault(reason, []).append(attack.title)
    return {reason: tuple(titles) for reason, titles in reasons.items()}


def _head_of(plan: Plan) -> Head | str | None:
    """Return the model's head, or why there is none; None where that is not clear yet."""
    work = Workspace(plan.auxiliary, {}, plan.local, plan.memory)
    try:
        return find_head(work)
    except NeedsModel:
        return None
    except NotApplicable as error:
        return str(error)
