"""What attacks on membership ask about: candidates, ranges and sets of records."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adversary.grading import selection
from fedsim import data
from fedsim.config import Config
from fedsim.core.rng import generator
from fedsim.core.types import Candidates
from fedsim.run.ranges import AskedRanges, draw_ranges
from fedsim.run.usage_sets import AskedSets, draw_sets


@dataclass(frozen=True, eq=False, kw_only=True)
class Questions:
    """What attacks on membership ask about; None where no attack asks.

    Attributes:
        rows: Of the candidates in the training set, −1 for a test row, shape (m,).
    """

    rows: Tensor | None = None
    candidates: Candidates | None = None
    ranges: AskedRanges | None = None
    sets: AskedSets | None = None


def draw_questions(config: Config, federated: data.Federated) -> Questions:
    """Draw what the attacks of a run ask about."""
    section, needed = config.auxiliary, selection.needs(config.attack)
    rows, candidates, ranges, sets = None, None, None, None
    if section.candidates and "candidates" in needed:
        rows, candidates = _draw_candidates(federated, section.candidates, config.seed)
    if section.range.count and "ranges" in needed:
        ranges = draw_ranges(federated, section.range, config.seed)
    if section.set_size and "sets" in needed:
        sets = draw_sets(federated, section.set_size, config.local_training(), config.seed)
    return Questions(rows=rows, candidates=candidates, ranges=ranges, sets=sets)


def _draw_candidates(federated: data.Federated, count: int, seed: int) -> tuple[Tensor, Candidates]:
    """Return the rows and records that membership is asked of: clients' and test rows, half each.

    Fewer if there are not as many rows.

    Args:
        federated: The data.
        count: How many candidates.
        seed: The run's.
    """
    dataset = federated.dataset
    private, stream = torch.cat(federated.clients), generator(seed, "candidates")
    members = private[torch.randperm(len(private), generator=stream)[: count // 2]]
    order = torch.randperm(len(dataset.test_labels), generator=stream)
    tests = order[: count - count // 2]
    return torch.cat([members, torch.full_like(tests, -1)]), Candidates(
        torch.cat([dataset.inputs[members], dataset.test_inputs[tests]]),
        torch.cat([dataset.y[members], dataset.test_y[tests]]),
    )
