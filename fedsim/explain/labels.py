"""Which attacks read labels from updates of an architecture, and from what part of them."""

import copy
from dataclasses import replace

from torch import nn

from adversary.attacks import ATTACKS
from adversary.labels.head import find_head, has_head
from adversary.readable import unread
from adversary.workspace import workspace
from fedsim.core.form import Form
from fedsim.core.memory import Memory
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.explain.explanation import Shape
from fedsim.models.trial import batch, step


def readers_of(model: nn.Module, shape: Shape, num_classes: int, local: LocalTraining) -> list[str]:
    """Return a sentence on each kind of label attack.

    Args:
        model: Left as it is.
        shape: Of one input.
        num_classes: Number of labels.
        local: How clients train.
    """
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, labels = batch(Form(shape, num_classes))
    slopes, _ = step(copy.deepcopy(model).train(), inputs, labels)
    local = replace(local, upload="gradient")
    trial = Observation(sent, Update(1, "trial", slopes, len(labels)), local)
    auxiliary = Auxiliary(model, num_classes, input_shape=shape)
    attacks = [
        attack
        for attack in ATTACKS.values()
        if attack.family == "label" and attack.reads and "vocabulary" not in attack.needs
    ]
    with Memory() as memory:
        refused = unread(attacks, auxiliary, [trial], memory)
        silent = {title for titles in refused.values() for title in titles}
        work = workspace(View([trial], memory=memory), auxiliary)
        alone = has_head(trial, work)  # which attacks on any upload then prefer
        parts: dict[str, list[str]] = {}
        for attack in (attack for attack in attacks if attack.title not in silent):
            of_head = alone or attack.reads == "head"
            part = find_head(work).weight if of_head else "all that is uploaded"
            parts.setdefault(part, []).append(attack.title)
    return [
        *(f"{', '.join(titles)} read {part}" for part, titles in parts.items()),
        *(f"{', '.join(titles)} refuse: {reason}" for reason, titles in refused.items()),
    ]
