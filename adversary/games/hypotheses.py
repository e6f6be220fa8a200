"""Hypotheses as a client that holds the record would upload them: through its defense.

A defense that turns, clips, signs or prunes an update is no factor on it, nor is one inside
training that clips each gradient, prices a bottleneck or moves a batch's gradient. Who knows the
defense does to each value of the secret what the client would: it takes the gradient of the record
and of others as the defense takes it, and sends their sum through the links on the update.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.games.evidence import Evidence
from adversary.games.game import Draws
from adversary.games.learner import Learner
from adversary.rehearsal import batch_gradient, defended
from fedsim.core.rng import generator
from fedsim.core.types import Observation, Params, Update

COINS = 4  # over which the upload is averaged, of a defense that draws
ROWS = 20_000  # hypotheses above which it is not
TRIED = 8  # hypotheses on which coins are compared
SAME = 1e-3  # part of a defense's effect that rounding may explain
TOGETHER = 32  # records of a rehearsed batch: of larger ones, the others are counted by their mean
HELD = 1024  # anybody's records that rehearsed batches are drawn from


@dataclass(frozen=True, eq=False)
class Others:
    """Anybody's records, which stand for those beside the record in question.

    Attributes:
        inputs: Shape (m, *shape).
        labels: Shape (m,), or of texts their next tokens.
        gradient: The mean gradient of many, without any defense, flat.
    """

    inputs: Tensor
    labels: Int[Tensor, "m *target"]
    gradient: Float[Tensor, " size"]

    def drawn(self, count: int, *names: object) -> tuple[Tensor, Tensor]:
        """Return so many of them, the same ones for the same names; with repetition."""
        rows = torch.randint(len(self.labels), (count,), generator=generator(0, "others", *names))
        return self.inputs[rows], self.labels[rows]


def anybody(learner: Learner, state: Params, draws: Draws) -> Others:
    """Return others as in some batches.

    Args:
        learner: The client.
        state: The weights sent.
        draws: What shadow clients train on.
    """
    inputs, labels = draws.inputs.flatten(0, 1)[:HELD], draws.labels.flatten(0, 1)[:HELD]
    return Others(inputs, labels, learner.mean_gradient(state, draws.inputs, draws.labels))


def defended_hypotheses(
    clients: Sequence[Learner], state: Params, trials: Evidence, *, others: Others
) -> Float[Tensor, "n values labels features"]:
    """Return the whole upload that each hypothesis predicts, flat.

    All hypotheses have the same coins and others: noise that does not depend on the update is the
    same in all of them, and says nothing. Where coins act differently on each, the mean over some
    is taken. Of trained weights the upload is that of steps at the weights sent.

    Args:
        clients: The client, with its defense; or several, one for each draw of coins, where the
            client's defense is known up to what it learned from records of its own.
        state: The weights sent.
        trials: With the records in question, and their batches' other records where known.
        others: For others of which nothing is known.
    """
    records = trials.records
    assert records is not None
    count = math.prod(records.shape)

    learner, most = clients[0], max(COINS, len(clients))

    def uploads(coin: int) -> Iterator[Params]:
        return _uploads(clients[coin % len(clients)], state, trials, others, coin)

    coins = most if count <= ROWS and _acts_differently(learner, uploads) else 1
    total = learner.read(uploads(0), learner.reduce)
    for coin in range(1, coins):
        total += learner.read(uploads(coin), learner.reduce)
    return (total / coins).view(*records.shape, -1)


def _acts_differently(learner: Learner, uploads: Callable[[int], Iterator[Params]]) -> bool:
    """Return whether coins change some hypotheses' uploads in several ways."""
    rows = [learner.read(islice(uploads(coin), TRIED), None) for coin in range(COINS)]
    effect = torch.stack(rows[1:]) - rows[0]
    apart = float((effect - effect[:, :1]).abs().max())
    return apart > SAME * float(effect.abs().max())


def _uploads(
    learner: Learner, state: Params, trials: Evidence, others: Others, coin: int
) -> Iterator[Params]:
    """Yield the defended upload of a client with each record, beside others."""
    local, defense = learner.local, learner.auxiliary.defense
    factor = trials.weight * (1.0 if local.upload == "gradient" else -local.lr)
    like = Observation(state, Update(1, "client", {}, None), local)
    inside = defense is not None and defense.gradient is not None
    sums = _in_training if inside else _alone
    for total in sums(learner, like, trials, others, coin):
        delta = {name: factor * value for name, value in total.items()}
        upload = replace(like, update=Update(1, "client", delta, 1))
        yield defended(upload, learner.auxiliary, generator(0, "hypotheses", coin)).update.delta


def _alone(
    learner: Learner,
    like: Observation,
    trials: Evidence,
    others: Others,
    coin: int,  # noqa: ARG001
) -> Iterator[Params]:
    """Yield the sum of a batch's gradients with each record; of others it is their mean's."""
    records = trials.records
    assert records is not None
    mean = others.gradient[None]
    if trials.others is not None and learner.reduce is None and trials.uploads.ndim == 2:
        mean = trials.others
    rest = (trials.batch - 1) * mean.expand(len(records.labels), -1)
    repeats = math.prod(records.shape[1:])
    sums = (row for row in rest for _ in range(repeats))
    sizes = [learner.model.get_parameter(name).numel() for name in learner.names]
    for alone, row in zip(learner.gradients(like, *records.alone()), sums, strict=True):
        parts = dict(zip(learner.names, row.split(sizes), strict=True))
        yield {name: g + parts[name].view_as(g) for name, g in alone.update.delta.items()}


def _in_training(
    learner: Learner, like: Observation, trials: Evidence, others: Others, coin: int
) -> Iterator[Params]:
    """Yield the same of a defense that takes the gradient itself, of the batch as a whole.

    Others that are not known are drawn, the same ones for all hypotheses. Those beyond one step's
    batch are counted by the mean of a batch without the record.
    """
    records, local = trials.records, like.local
    assert records is not None
    together = trials.batch if local.upload == "gradient" else min(trials.batch, local.batch_size)
    if records.others is None:
        together = min(together, TOGETHER)
    drawn = others.drawn(together - 1, coin, "beside")
    elsewhere, beyond = trials.batch - together, {}

    def gradient(inputs: Tensor, labels: Tensor) -> Params:
        stream = generator(0, "hypotheses", coin, "training")
        defense = learner.auxiliary.defense
        return batch_gradient(like, learner.working_copy, inputs, labels, stream, defense=defense)

    if elsewhere and records.others is None:
        beyond = gradient(*others.drawn(together, coin, "elsewhere"))
    repeats = math.prod(records.shape[1:])
    for place, (x, y) in enumerate(zip(*records.alone(), strict=True)):
        beside, theirs = drawn
        if records.others is not None:
            beside, theirs = (part[place // repeats] for part in records.others)
            if elsewhere and place % repeats == 0:
                beyond = gradient(beside, theirs)
        batch = torch.cat([beside[: together - 1], x]), torch.cat([theirs[: together - 1], y])
        whole = gradient(*batch)
        count = len(batch[1])
        yield {
            name: count * value + (elsewhere * beyond[name] if elsewhere else 0.0)
            for name, value in whole.items()
        }
