"""Are batches drawn as claimed? Exact tests of Poisson sampling: every record by itself, anew."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from defenses import Defense
from defenses.accounting import num_steps
from fedsim.audit.noise import Doubt
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining

ROUNDS = 64  # of which batches are drawn
SAMPLES = "takes each record into a batch by itself, with the chance that it claims"


def claims_poisson(link: Defense) -> bool:
    """Return whether a defense claims privacy that Poisson sampling amplifies."""
    return link.promise.formal and "poisson" in (link.promise.mechanism or "").lower()


def sampling_doubt(link: Defense, local: LocalTraining, num_examples: int) -> Doubt:
    """Return the strongest doubt about a defense's batches, corrected for all that were looked at.

    Args:
        link: With batches of its own, or those of local training.
        local: The protocol.
        num_examples: Of the client.
    """
    if link.batches is None:
        return Doubt(0.0, "draws no batches of its own, and claims Poisson sampling")
    drawn = [
        link.batches(num_examples, local, generator(0, "audit link", "batches", place))
        for place in range(ROUNDS)
    ]
    steps = num_steps(num_examples, local)
    if wrong := {len(batches) for batches in drawn} - {steps}:
        return Doubt(0.0, f"takes {min(wrong)} steps in a round, claims {steps}")
    rows = np.zeros((ROUNDS, steps, num_examples), dtype=bool)
    for place, batches in enumerate(drawn):
        for step, batch in enumerate(batches):
            rows[place, step, torch.unique(batch).numpy()] = True
    doubts = list(_doubts(rows, min(1.0, local.batch_size / num_examples)))
    worst = min(doubts, key=lambda each: each.p)  # the first of equals
    return Doubt(min(1.0, worst.p * len(doubts)), worst.reason)


def _doubts(rows: NDArray[np.bool_], rate: float) -> Iterator[Doubt]:
    """Yield all doubts about which records are in which batch, shape (rounds, steps, records)."""
    batches = rows.reshape(-1, rows.shape[-1])
    count, size = batches.shape
    times = batches.sum(axis=0)
    chances = size * _two_sided(times, count, rate)
    place = int(chances.argmin())
    yield Doubt(
        float(chances[place]),
        f"does not sample as it claims: record {place + 1} of {size} is in {times[place]} of "
        f"{count} batches, claims a rate of {rate:.3g}",
    )
    middle = round(rate * size)
    fixed = int((batches.sum(axis=1) == middle).sum())
    yield Doubt(
        float(binom.sf(fixed - 1, count, binom.pmf(middle, size, rate))),
        f"does not sample each record by itself: {fixed} of {count} batches hold {middle} records",
    )
    again = (rows[:, 1:] == rows[:, :-1]).all(axis=-1)
    if again.size:
        same = (rate**2 + (1 - rate) ** 2) ** size
        # Two pairs of steps that share one are equal by themselves only at a rate of a half: of
        # every second pair none is shared.
        apart = again[:, ::2]
        repeats = int(apart.sum())
        yield Doubt(
            float(binom.sf(repeats - 1, apart.size, same)),
            f"takes the same batch in {repeats} of {apart.size} pairs of steps",
        )


def _two_sided(times: Sequence[int] | NDArray, count: int, rate: float) -> NDArray[np.float64]:
    below, above = binom.cdf(times, count, rate), binom.sf(np.asarray(times) - 1, count, rate)
    return np.minimum(1.0, 2 * np.minimum(below, above))
