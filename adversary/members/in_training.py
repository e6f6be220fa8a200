"""What a record adds to the gradients of clients whose defense takes part in training.

A clip of each example, the price of a bottleneck and a surrogate that is to be misled change a
record's gradient before any upload is made. Who knows the defense takes the gradient of a batch as
the defense does, with the record and without it. Noise that does not look at the batch cancels, and
what coins do to it is averaged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.projection import Reduce
from adversary.rehearsal import batch_gradient
from adversary.workspace import Workspace, working_copy
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Observation, Params, Update

BATCH = 8  # records at most: the one in question, and others beside it
COINS = 4  # over which a record's part is averaged, of a defense that draws
TRIED = 8  # records on which coins are compared
SAME = 1e-3  # part of a defense's effect that rounding may explain
ENTRIES = 2**25  # of all candidates' parts, at most: 128 MiB; of more, projections are held


def takes_part(auxiliary: Auxiliary) -> bool:
    """Return whether the adversary knows of a defense inside training."""
    return auxiliary.defense is not None and auxiliary.defense.gradient is not None


def parts(work: Workspace) -> Iterator[Params]:
    """Yield what every candidate adds to the sum of a batch's gradients.

    Args:
        work: With candidates, a defense inside training, and auxiliary records to stand beside.
    """
    coins = work.part(_coins, keep=4)
    count = len(_candidates(work)[1])
    for place in range(count):
        total = _part(work, place, 0)
        for coin in range(1, coins):
            total = {n: v + total[n] for n, v in _part(work, place, coin).items()}
        yield {name: value / coins for name, value in total.items()}


@dataclass(frozen=True, eq=False)
class Rows:
    """The parts of all candidates, flat.

    Attributes:
        values: Of each, or a projection of it that keeps inner products in expectation.
        reduce: The projection; None where all entries are held.
    """

    values: Float[Tensor, "m features"]
    reduce: Reduce | None

    def along(self, direction: Params) -> Float[Tensor, " m"]:
        """Return the inner product of every part with a direction, float64."""
        return self.values.double() @ _flat(direction, self.reduce).double()


def rows(work: Workspace) -> Rows:
    """Return the parts of all candidates: a part of the workspace."""
    model, count = work.auxiliary.model, len(_candidates(work)[1])
    sizes = [value.numel() for value in model.parameters() if value.requires_grad]
    cells, reduce = max(len(sizes), ENTRIES // max(1, count)), None
    if sum(sizes) > cells:
        reduce = Reduce(sizes, cells, generator(0, "parts"))
    values = torch.stack([_flat(part, reduce) for part in parts(work)])
    return Rows(values, reduce)


def _coins(work: Workspace) -> int:
    """Return over how many draws parts are averaged: one where coins change none of them."""
    tried = range(min(TRIED, len(_candidates(work)[1])))
    draws = [
        torch.stack([_flat(_part(work, place, coin), None) for place in tried])
        for coin in range(COINS)
    ]
    apart = max(float((draw - draws[0]).abs().max()) for draw in draws)
    return COINS if apart > SAME * float(draws[0].abs().max()) else 1


def _part(work: Workspace, place: int, coin: int) -> Params:
    """Return what one candidate adds under one draw of coins."""
    inputs, labels = _candidates(work)
    (beside, theirs), without = work.part(_beside, coin, keep=2 * COINS)
    row = slice(place, place + 1)
    together = torch.cat([beside, inputs[row].to(beside.dtype)]), torch.cat([theirs, labels[row]])
    whole = _sum(work, *together, coin)
    return {name: value - without[name] for name, value in whole.items()}


def _beside(work: Workspace, coin: int) -> tuple[tuple[Tensor, Tensor], Params]:
    """Return anybody's records, and the sum of their gradients as the defense takes it."""
    auxiliary = work.auxiliary
    assert auxiliary.inputs is not None
    assert auxiliary.labels is not None
    count = max(1, min(work.local.batch_size, BATCH) - 1)
    stream = generator(0, "parts", coin, "beside")
    drawn = torch.randint(len(auxiliary.labels), (count,), generator=stream)
    records = auxiliary.inputs[drawn], auxiliary.labels[drawn]
    return records, _sum(work, *records, coin)


def _sum(work: Workspace, inputs: Tensor, labels: Tensor, coin: int) -> Params:
    """Return the sum of a batch's gradients as the defense takes it."""
    like = Observation(work.sent, Update(1, "candidate", {}, None), work.local)
    stream = generator(0, "parts", coin, "training")
    model, defense = work.lasting(working_copy), work.auxiliary.defense
    mean = batch_gradient(like, model, inputs, labels, stream, defense=defense)
    return {name: len(labels) * value for name, value in mean.items()}


def _candidates(work: Workspace) -> Sequence[Tensor]:
    candidates = work.auxiliary.candidates
    assert candidates is not None
    return candidates.inputs, candidates.labels


def _flat(part: Params, reduce: Reduce | None) -> Tensor:
    flat = torch.cat([value.flatten() for value in part.values()])
    return flat if reduce is None else reduce(flat[None].float())[0]
