"""The examples a client used, and what reconstructions of them are graded with."""

from dataclasses import replace

import torch
from torch import Tensor

from adversary.grading.reconstructions import blank, bounds
from adversary.memo import once
from fedsim.core.errors import BadRecording
from fedsim.core.rng import generator
from fedsim.core.types import Lineup, Truth
from fedsim.data import Federated

OTHERS = 99  # for each example of the client, as far as there are as many
CELLS = 4_000_000  # of the table of distances between guesses and the pool


@once(size=2)
def with_inputs(
    truth: Truth | None, federated: Federated, *, seed: int, round_: int, client: str
) -> Truth | None:
    """Return a client's truth with its distinct examples, and others to tell them from.

    None where its rows are not known: another app's client may keep its labels only.

    Args:
        truth: With the rows of the training set that it used.
        federated: The training set, and which of its rows are auxiliary.
        seed: The run's.
        round_: The round and the client: others are drawn for each.
        client: See `round_`.

    Raises:
        BadRecording: A row is none of the training set.
    """
    if truth is None or not len(truth.indices):
        return None
    examples = federated.dataset.inputs
    used = truth.indices.unique()
    if int(used[0]) < 0 or int(used[-1]) >= len(examples):
        raise BadRecording(
            f"truth: must name rows below {len(examples)}, got {int(used[0])} to {int(used[-1])}"
        )
    unused = torch.ones(len(examples), dtype=torch.bool)
    unused[used] = False
    rows = unused.nonzero().flatten()
    count = min(OTHERS * len(used), max(OTHERS, CELLS // len(used) - len(used)))
    order = torch.randperm(len(rows), generator=generator(seed, "lineup", round_, client))
    picture, low, high = _scale(federated)
    lineup = Lineup(examples, rows[order[:count]].sort().values, picture, low, high)
    return replace(truth, inputs=examples[used], lineup=lineup)


@once(size=1)
def _scale(federated: Federated) -> tuple[Tensor, Tensor, Tensor]:
    """Return the blank picture, and the smallest and largest value of each input."""
    examples, held_out = federated.dataset.inputs, federated.auxiliary
    auxiliary = examples[held_out] if len(held_out) else None
    return blank(auxiliary, tuple(examples.shape[1:])), *bounds(examples)
