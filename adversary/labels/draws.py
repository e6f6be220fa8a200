"""Counts of largest expected overlap where evidence is weak: draws from the prior, weighted by it.

Chains that move counts step by step (`posterior`) do not cross from skewed to even clients and back
in any number of steps that is paid for. Draws from the prior do, as long as the evidence leaves
enough of them; where it does not, it says so much that chains need not cross.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.gls import Fit, best_spread
from adversary.labels.posterior import Evidence, most_overlapping
from fedsim.core.rng import generator

CLIENTS = {(a, even): 0.1 for a in (0.1, 0.2, 0.5) for even in (0.0, 0.25, 0.5)}
CLIENTS[1.0, 1.0] = 0.1
"""A client's kind → its probability: concentration α of uneven labels, share of even ones.

Labels are drawn from (1 − share)·Dirichlet(α) + share/C: some clients have labels of a few classes
and a rest of all. One in ten has even labels alone.
"""
DRAWS = 2000  # of each kind
ENOUGH = 100.0  # draws that all weights together must be worth
OPEN = 0.25  # variance of a count: below, evidence says which whole number it is
MANY = 200  # classes, beyond which draws from the prior cost seconds


def whole_counts(fit: Fit) -> Int[Tensor, " classes"]:
    """Return the most likely counts, or those of largest expected overlap where a fit is bad.

    The latter where the evidence, as weak as the fit's misfit says, leaves counts open.
    """
    evidence = fit.tempered
    if fit.misfit > 1 and evidence.variance() > OPEN:
        if len(fit.counts) > MANY:
            return evidence.with_prior(best_spread(evidence)).whole(fit.counts)
        weighted = weighted_overlap_counts(evidence)
        if weighted is not None:
            return weighted
    return fit.posterior.whole(fit.counts)


def weighted_overlap_counts(evidence: Evidence) -> Int[Tensor, " classes"] | None:
    """Return the counts of largest expected overlap with the truth; None of too few draws.

    The prior is that of `CLIENTS`.

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


@lru_cache(maxsize=8)
def prior_draws(
    classes: int, total: int
) -> tuple[Float[Tensor, "draws classes"], Float[Tensor, " draws"]]:
    """Return counts drawn from the prior of every kind of client, and their log weights.

    Always the same ones.
    """
    stream = generator(0, "prior of counts", classes, total)
    grid = torch.tensor(list(CLIENTS), dtype=torch.float64).repeat_interleave(DRAWS, dim=0)
    log_weight = torch.tensor(list(CLIENTS.values())).double().log().repeat_interleave(DRAWS)
    alpha, even = grid[:, :1].repeat(1, classes), grid[:, 1:]
    share = (1 - even) * torch._sample_dirichlet(alpha, generator=stream) + even / classes
    left = torch.full((len(grid),), float(total), dtype=torch.float64)
    rest, counts = torch.ones_like(left), []
    for column in share.T[:-1]:  # a multinomial draw, one class after the other
        rate = (column / rest.clamp(min=1e-300)).clamp(0, 1)
        drawn = torch.binomial(left, rate, generator=stream)
        counts.append(drawn)
        left, rest = left - drawn, (rest - column).clamp(min=0)
    return torch.stack([*counts, left], dim=1), log_weight
