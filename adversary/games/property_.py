"""A property of the batch: some of its records have it, or none has."""

import math

import torch
from torch import Generator, Tensor

from adversary.games.game import Draws, Game, Shift, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules

LARGEST = 8.0  # log-odds of one record, at most


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw records without the property, and put those with it first if the secret says so.

    Raises:
        ValueError: A batch does not hold so many records with the property.
    """
    if rules.count > rules.batch:
        raise ValueError(f"count: must be at most the batch size {rules.batch}, got {rules.count}")
    rows = pool.drawn(len(secrets) * rules.batch, generator, mark=0)
    rows, having = rows.view(len(secrets), rules.batch), secrets == 1
    some = pool.drawn(int(having.sum()) * rules.count, generator, mark=1)
    rows[having, : rules.count] = some.view(-1, rules.count)
    return draws_of(pool, rows, secrets)


def impute(likelihoods: Tensor, rules: Rules) -> Tensor:
    """Return log-odds of so many records with the property, in any places of the batch.

    Their mean over places, an elementary symmetric polynomial of the records' odds.
    """
    odds = (likelihoods[..., 1] - likelihoods[..., 0]).clamp(-LARGEST, LARGEST).exp()
    sums = torch.zeros(len(odds), rules.count + 1, dtype=odds.dtype)
    sums[:, 0] = 1
    for each in odds.T:
        sums[:, 1:] += each[:, None] * sums[:, :-1]
    log_odds = sums[:, -1].log() - math.log(math.comb(odds.shape[1], rules.count))
    return torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)


GAME = Game(
    name="property",
    summary="whether any record of the batch has the property",
    sample=sample,
    impute=impute,
    shift=lambda rules, rounds: Shift.of(rules.count, rounds),
)
