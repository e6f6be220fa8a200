"""What attacks cannot read of a plan's updates, said before anything is trained."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Generator

from adversary.grading.refusals import without_gradient
from adversary.readable import unread
from defenses import Defense
from fedsim.core.boundary import PASSING
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Observation, Params, Update
from fedsim.models.trial import batch, step
from fedsim.run.prepare import Plan

TRIALS = 3


def unreadable(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Return why attacks will refuse every update of a plan: reason → their titles.

    What the clients' defenses withhold counts, too: updates of random examples are taken through
    them.
    """
    with Memory(plan.memory) as memory:
        reasons = dict(unread(plan.attacks, plan.auxiliary, _trials(plan), memory))
    for attack in plan.attacks:
        if reason := without_gradient(attack, plan.auxiliary):
            reasons[reason] = (*reasons.get(reason, ()), attack.title)
    return reasons


def _trials(plan: Plan) -> Iterator[Observation]:
    """Yield gradients of random examples, as clients upload them."""
    form, local = plan.federated.dataset.form, replace(plan.local, upload="gradient")
    sent = {name: value.clone() for name, value in plan.model.state_dict().items()}
    for number in range(TRIALS):
        inputs, labels = batch(form, number=number)
        slopes, _ = step(copy.deepcopy(plan.model).train(), inputs, labels)
        uploaded = _defended(plan.defense, slopes, generator(0, "trial", number))
        yield Observation(sent, Update(number + 1, "trial", uploaded, len(labels)), local)


def _defended(defense: Defense, update: Params, coins: Generator) -> Params:
    """Return what is left of an update; all of it where the defense fails on random examples."""
    try:
        return defense.apply(update, defense.init(update), coins)[0]
    except PASSING:
        raise
    except Exception:  # the clients' failures will say why
        return update
