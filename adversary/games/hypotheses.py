"""Hypotheses as a client that holds the record would upload them: through its defense.

A defense that turns, clips, signs or prunes an update is no factor on it. Who knows the defense
applies it to what each value of the secret predicts, the record's gradient and the others' share.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from jaxtyping import Float
from torch import Tensor

from adversary.games.evidence import Evidence
from adversary.games.learner import Learner
from adversary.rehearsal import defended
from fedsim.core.rng import generator
from fedsim.core.types import Observation, Params, Update

COINS = 4  # over which the upload is averaged, of a defense that draws
ROWS = 20_000  # hypotheses above which it is not
SAME = 1e-3  # part of a defense's effect that rounding may explain


def defended_hypotheses(
    learner: Learner, state: Params, trials: Evidence, *, mean: Float[Tensor, " size"]
) -> Float[Tensor, "n values labels features"]:
    """Return the whole upload that each hypothesis predicts, flat.

    All hypotheses have the same coins: noise that does not depend on the update is the same in all
    of them, and says nothing. Where coins act differently on each, the mean over some is taken.

    Args:
        learner: The client, with its defense.
        state: The weights sent.
        trials: With the records in question; of the others their own mean gradient where known.
        mean: The mean gradient of anybody's record, of others of which nothing is known.
    """
    records = trials.records
    assert records is not None
    others = mean[None]
    if trials.others is not None and learner.reduce is None and trials.uploads.ndim == 2:
        others = trials.others
    rest = (trials.batch - 1) * others.expand(len(records.labels), -1)
    repeats = math.prod(records.shape[1:])

    def uploads(coin: int) -> Iterator[Params]:
        sums = (row for row in rest for _ in range(repeats))
        return _uploads(learner, state, trials, sums, coin)

    coins = COINS if len(rest) * repeats <= ROWS and _acts_differently(learner, uploads) else 1
    total = learner.read(uploads(0), learner.reduce)
    for coin in range(1, coins):
        total += learner.read(uploads(coin), learner.reduce)
    return (total / coins).view(*records.shape, -1)


def _acts_differently(learner: Learner, uploads: Callable[[int], Iterator[Params]]) -> bool:
    """Return whether coins change two hypotheses' uploads in two ways."""
    first, second = (learner.read(islice(uploads(coin), 2), None) for coin in (0, 1))
    effect = second - first
    apart = float((effect - effect[:1]).abs().max())
    return apart > SAME * float(effect.abs().max())


def _uploads(
    learner: Learner, state: Params, trials: Evidence, rests: Iterable[Tensor], coin: int
) -> Iterator[Params]:
    """Yield the defended upload of a client with each record, beside others with these sums."""
    local, records = learner.local, trials.records
    assert records is not None
    like = Observation(state, Update(1, "client", {}, None), local)
    factor = trials.weight * (1.0 if local.upload == "gradient" else -local.lr)
    sizes = [learner.model.get_parameter(name).numel() for name in learner.names]
    for alone, rest in zip(learner.gradients(like, *records.alone()), rests, strict=True):
        gradients = alone.update.delta.items()
        parts = dict(zip(learner.names, rest.split(sizes), strict=True))
        delta = {name: factor * (g + parts[name].view_as(g)) for name, g in gradients}
        upload = replace(alone, update=replace(alone.update, delta=delta))
        stream = generator(0, "hypotheses", coin)
        yield defended(upload, learner.auxiliary, stream).update.delta
