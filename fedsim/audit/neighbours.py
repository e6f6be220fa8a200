"""The canary of a name, and the two neighbouring data sets that it makes."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from adversary.auditing import canaries
from adversary.auditing.canaries import Canary, alternate, stand_in
from clients.train import load
from defenses import links
from defenses.promise import Relation
from fedsim.audit.batches import Batch, Neighbours, trained_of
from fedsim.audit.setup import Setup
from fedsim.core.errors import ConfigError
from fedsim.core.params import random_direction
from fedsim.core.rng import generator

LONG = 16.0  # times the clip: a gradient that a mechanism must cut
FAR = 1000.0  # length of a gradient for a mechanism that does not state its clip


def craft(setup: Setup, name: str) -> Canary:
    """Return the record that a canary's name stands for.

    Raises:
        ConfigError: There is none in these data.
    """
    question, pool, classes = setup.question, setup.pool, setup.dataset.num_classes
    setup.model.eval()  # what training draws at random is no part of a record
    try:
        if name == "natural":
            return canaries.natural(question, pool.inputs, pool.labels)
        if name == "average":
            return canaries.average(question, pool.inputs, pool.labels)
        if name == "in-domain":
            columns = canaries.coordinates_of(setup.dataset, setup.config.audit.column)
            return canaries.in_domain(question, pool.inputs, pool.labels, columns, classes)
        if name == "free":
            return canaries.free(question, pool.inputs, pool.labels, classes)
        stream = generator(setup.config.seed, "audit", "canife")
        return canaries.canife(question, pool.inputs, pool.labels, classes, stream)
    except ValueError as error:
        raise ConfigError(f"audit.{error}") from None


def neighbours(setup: Setup, name: str, canary: Canary | None) -> Neighbours:
    """Return the two data sets that a canary makes: itself first, then the other records.

    Args:
        setup: The setting.
        name: Of the canary.
        canary: The record; None for a canary whose gradient is chosen itself.
    """
    if canary is None:
        return chosen(setup, opposite=name == "opposite", crowded=name == "microbatch")
    rounds = setup.config.audit.rounds
    without, having = _batches(setup, canary)
    return Neighbours(setup.model, setup.states, ([without] * rounds, [having] * rounds))


def _batches(setup: Setup, canary: Canary) -> tuple[Batch, Batch]:
    """Return a round's batch without the canary and with it, or with its two values."""
    size, shape = setup.config.audit.batch_size, setup.dataset.input_shape
    stream = generator(setup.config.seed, "audit", "others")
    rows = torch.randperm(len(setup.others.labels), generator=stream)[: size - 1]
    labels = torch.cat([canary.label[None], setup.others.labels[rows]])

    def batch(first: Tensor, present: Tensor) -> Batch:
        inputs = torch.cat([first.view(1, *shape), setup.others.inputs[rows]])
        return Batch(inputs, labels, present)

    if setup.encoding is None and setup.relation is Relation.REPLACE_EXAMPLE:
        return _replaced(setup, batch(canary.inputs, _all(size)), rows)
    if setup.encoding is None:
        return batch(canary.inputs, _all_but_first(size)), batch(canary.inputs, _all(size))
    absent, present = (
        batch(setup.encoding.put(canary.inputs[None], torch.tensor([value])), _all(size))
        for value in (0, 1)
    )
    return absent, present


def _replaced(setup: Setup, having: Batch, rows: Tensor) -> tuple[Batch, Batch]:
    """Return a batch with an auxiliary record in the canary's place, and the batch itself.

    The record is the first that is not in the batch.
    """
    pool = setup.others
    left = torch.ones(len(pool.labels), dtype=torch.bool)
    left[rows] = False
    place = int(left.nonzero()[0, 0])
    inputs, labels = having.inputs.clone(), having.labels.clone()
    inputs[0], labels[0] = pool.inputs[place], pool.labels[place]
    return Batch(inputs, labels, having.present), having


def chosen(setup: Setup, *, opposite: bool = False, crowded: bool = False) -> Neighbours:
    """Return neighbours whose only gradient is the auditor's, that of the others being zero.

    Args:
        setup: The setting.
        crowded: Whether the others have gradients, too, of alternate signs and falling length: the
            sum of records that are clipped together points the way of the first of them, which
            another one is once the canary is gone.
        opposite: Whether its sign is reversed in every second round: what is the same in two
            rounds, such as noise that is used again, then cancels.
    """
    size, rounds = setup.config.audit.batch_size, setup.config.audit.rounds
    load(setup.model, setup.states[0])
    like = {n: v.detach() for n, v in trained_of(setup.model).items()}
    direction = random_direction(like, generator(setup.config.seed, "audit", "direction"))
    model = stand_in(setup.model, direction, _strength(setup))
    inputs = torch.zeros(size, *setup.dataset.input_shape)
    inputs.view(size, -1)[0, 0] = -1.0
    if crowded:
        inputs.view(size, -1)[:, 0] = alternate(size)
    labels = torch.zeros(size, dtype=torch.int64)
    without, having = [], []
    for place in range(rounds):
        sign = -1.0 if opposite and place % 2 else 1.0
        having.append(Batch(sign * inputs, labels, _all(size)))
        if setup.relation.replaces:
            without.append(Batch(-sign * inputs, labels, _all(size)))
        else:
            without.append(Batch(sign * inputs, labels, _all_but_first(size)))
    return Neighbours(model, [setup.states[0]] * rounds, (without, having), constant=True)


def opposites(setup: Setup) -> Neighbours | None:
    """Return neighbours whose gradients are opposite and longer than any that is let through.

    None if nothing is claimed, the defenses do not take any gradient, or noise cannot be turned
    off.
    """
    made = setup.mechanism
    if setup.claim.epsilon is None or made.quiet is None or made.user is not None:
        return None
    if not made.takes_any:
        return None
    return chosen(replace(setup, relation=Relation.REPLACE_EXAMPLE))


def _strength(setup: Setup) -> float:
    """Return how long the chosen gradient is: well beyond what must be clipped."""
    if setup.mechanism.user is not None:
        return FAR
    local, bounds = setup.mechanism.local, [setup.clip]
    for link in links(setup.config.defense):
        bounds.append(link.bound(math.inf) / (local.lr if local.upload == "weights" else 1.0))
    finite = [bound for bound in bounds if math.isfinite(bound)]
    return LONG * setup.config.audit.batch_size * max(finite, default=1 / LONG)


def _all(size: int) -> Tensor:
    return torch.ones(size, dtype=torch.bool)


def _all_but_first(size: int) -> Tensor:
    return torch.arange(size) > 0
