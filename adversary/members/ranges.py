"""Records that stand for a range: auxiliary records of its label, moved into it."""

from dataclasses import replace

import torch
from torch import Tensor

from adversary.workspace import Workspace
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, Ranges


def members(work: Workspace, samples: int) -> Auxiliary:
    """Let the adversary ask about `samples` records of every range, one range after the other.

    Where no auxiliary record has the label, those of any label are moved.
    """
    inputs, ranges = _known(work.auxiliary)
    donors = []
    for place, rows in enumerate(_alike(work.auxiliary, ranges)):
        stream = generator(0, "range member", place)
        drawn = torch.randint(len(rows), (samples,), generator=stream)
        donors.append(inputs[rows[drawn]])
    low, high = (bound.repeat_interleave(samples, dim=0) for bound in (ranges.low, ranges.high))
    moved = torch.cat(donors).clamp(low, high)
    labels = ranges.labels.repeat_interleave(samples)
    return replace(work.auxiliary, candidates=Candidates(moved, labels))


def centres(work: Workspace) -> Auxiliary:
    """Let the adversary ask about one record of every range: the label's mean, moved into it."""
    inputs, ranges = _known(work.auxiliary)
    means = torch.stack(
        [inputs[rows].double().mean(dim=0) for rows in _alike(work.auxiliary, ranges)]
    )
    if not inputs.is_floating_point():
        means = means.round()
    moved = means.to(inputs.dtype).clamp(ranges.low, ranges.high)
    return replace(work.auxiliary, candidates=Candidates(moved, ranges.labels))


def _known(auxiliary: Auxiliary) -> tuple[Tensor, Ranges]:
    inputs, ranges = auxiliary.inputs, auxiliary.ranges
    assert inputs is not None
    assert ranges is not None
    return inputs, ranges


def _alike(auxiliary: Auxiliary, ranges: Ranges) -> list[Tensor]:
    """Return the rows of the auxiliary records of each range's label; all rows without any."""
    labels = auxiliary.labels
    assert labels is not None
    by_label = {
        int(label): torch.nonzero(labels == label)[:, 0] for label in ranges.labels.unique()
    }
    everyone = torch.arange(len(labels))
    rows = [by_label[int(label)] for label in ranges.labels]
    return [alike if len(alike) else everyone for alike in rows]
