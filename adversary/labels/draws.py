"""Counts of largest expected overlap where evidence is weak: draws from the prior, weighted by it.

Chains that move counts step by step (`posterior`) do not cross from skewed to even clients and back
in any number of steps that is paid for. Draws from the prior do, as long as the evidence leaves
enough of them; where it does not, it says so much that chains need not cross.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.posterior import Evidence, most_overlapping
from fedsim.core.rng import generator

CLIENTS = {0.2: 0.4, 0.5: 0.4, 1.0: 0.1, 100.0: 0.1}
"""Concentration of clients' labels → its probability: most are skewed, one in ten is even."""
DRAWS = 2000  # of each concentration
ENOUGH = 100.0  # draws that all weights together must be worth


def weighted_overlap_counts(evidence: Evidence) -> Int[Tensor, " classes"] | None:
    """Return the counts of largest expected overlap with the truth; None of too few draws.

    The prior is Dirichlet-multinomial, of a concentration as in `CLIENTS`.

    Args:
        evidence: Without a prior.
    """
    counts, weight = prior_draws(len(evidence.linear), evidence.total)
    energy = ((counts @ evidence.quadratic) * counts).sum(dim=1) / 2 - counts @ evidence.linear
    weight = (weight - energy).masked_fill((counts < evidence.lower).any(dim=1), -torch.inf)
    weight = (weight - weight.max()).exp().nan_to_num()
    if float(weight.sum() ** 2) <= ENOUGH * float(weight.square().sum()):
        return None
    reached = torch.zeros(len(evidence.linear), evidence.total + 1, dtype=torch.float64)
    for row, of_class in zip(reached, counts.T, strict=True):
        row.index_add_(0, of_class.long(), weight)
    return most_overlapping(reached)


@lru_cache(maxsize=4)
def prior_draws(
    classes: int, total: int
) -> tuple[Float[Tensor, "draws classes"], Float[Tensor, " draws"]]:
    """Return counts drawn from the prior of every concentration, and their log weights.

    Always the same ones.
    """
    stream = generator(0, "prior of counts", classes, total)
    grid = torch.tensor(list(CLIENTS), dtype=torch.float64).repeat_interleave(DRAWS)
    log_weight = torch.tensor(list(CLIENTS.values())).double().log().repeat_interleave(DRAWS)
    alpha = grid.unsqueeze(1).repeat(1, classes)
    share = torch._sample_dirichlet(alpha, generator=stream)
    left = torch.full((len(grid),), float(total), dtype=torch.float64)
    rest, counts = torch.ones_like(left), []
    for column in share.T[:-1]:  # a multinomial draw, one class after the other
        rate = (column / rest.clamp(min=1e-300)).clamp(0, 1)
        drawn = torch.binomial(left, rate, generator=stream)
        counts.append(drawn)
        left, rest = left - drawn, (rest - column).clamp(min=0)
    return torch.stack([*counts, left], dim=1), log_weight
