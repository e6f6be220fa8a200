"""Uploads of one client over rounds: one upload per round at most, matched round by round."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

STEPS = 30  # of expectation and maximisation; the threshold moves no more


def sequences(
    scores: Float[Tensor, "uploads uploads"], sizes: Sequence[int]
) -> tuple[Int[Tensor, " uploads"], Float[Tensor, "latest chains"]]:
    """Return which sequence each upload belongs to, and the latest uploads' scores with sequences.

    Round by round, uploads are assigned to the sequences so far such that the sum of mean scores
    above `threshold` is largest, and no two uploads of a round share one. An upload whose mean
    score is not above it begins a sequence.

    Args:
        scores: Of every pair, symmetric; uploads of a round are neighbours.
        sizes: Uploads of each round, oldest first; two rounds or more.
    """
    limit = threshold(scores, sizes)
    belongs = torch.zeros(0, 0, dtype=scores.dtype)  # earlier uploads × sequences
    places, start = torch.zeros(0, dtype=torch.int64), 0
    means = torch.zeros(0, 0, dtype=scores.dtype)
    for size in sizes:
        rows = scores[start : start + size, :start]
        means = rows @ belongs / belongs.sum(dim=0).clamp(min=1)
        joined = _assigned(means, limit)
        fresh = (joined < 0).nonzero()[:, 0]
        count = belongs.shape[1]
        joined[fresh] = torch.arange(count, count + len(fresh))
        grown = torch.zeros(start + size, count + len(fresh), dtype=scores.dtype)
        grown[:start, :count] = belongs
        grown[torch.arange(start, start + size), joined] = 1.0
        belongs, places, start = grown, torch.cat([places, joined]), start + size
    return places, means


def threshold(scores: Float[Tensor, "uploads uploads"], sizes: Sequence[int]) -> float:
    """Return the score at which a pair of different rounds is as likely of one client as of two.

    Two uploads of one round are of two clients: their scores show how alike strangers are. Pairs of
    different rounds are a mixture of strangers and of pairs of one client, Gaussians of the same
    width; the threshold lies midway between the two means.
    """
    of_round = torch.arange(len(sizes)).repeat_interleave(torch.tensor(list(sizes)))
    upper = torch.ones_like(scores, dtype=torch.bool).triu(1)
    same = of_round.unsqueeze(0) == of_round.unsqueeze(1)
    strangers, pairs = scores[same & upper], scores[~same & upper]
    strangers = strangers if len(strangers) > 1 else pairs
    middle, variance = strangers.mean(), strangers.var(correction=0)
    top = pairs.max()
    if not len(pairs) or float(variance) <= 0 or float(top) <= float(middle):
        return float((middle + top) / 2)
    share = torch.tensor(1 / len(sizes), dtype=scores.dtype)
    for _ in range(STEPS):
        evidence = (top - middle) / variance * (pairs - (top + middle) / 2)
        weight = torch.sigmoid(evidence + share.logit())
        share = weight.mean().clamp(1 / len(pairs), 0.5)
        top = (weight * pairs).sum() / weight.sum().clamp(min=1e-12)
    return float((middle + top) / 2)


def _assigned(means: Tensor, limit: float) -> Int[Tensor, " latest"]:
    """Return the sequence of each row, −1 for none."""
    from scipy.optimize import linear_sum_assignment

    joined = torch.full((len(means),), -1)
    if means.shape[1]:
        above = (means - limit).clamp(min=0).numpy()
        rows, columns = linear_sum_assignment(above, maximize=True)
        kept = above[rows, columns] > 0
        joined[torch.from_numpy(rows[kept])] = torch.from_numpy(columns[kept].astype(np.int64))
    return joined
