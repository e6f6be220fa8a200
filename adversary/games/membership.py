"""Membership: the record in question is the first of the batch, or another one is in its place."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from adversary.games.game import Draws, Game, Shift, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw one record more than a batch has; the secret says which end is left out."""
    rows = pool.batches(len(secrets), rules.batch + 1, generator)
    target = rows[:, 0]
    rows = torch.where((secrets == 1)[:, None], rows[:, :-1], rows[:, 1:])
    return replace(
        draws_of(pool, rows, secrets),
        targets=pool.inputs[target][:, None],
        target_labels=pool.labels[target],
    )


GAME = Game(
    name="membership",
    summary="whether a known record was used",
    sample=sample,
    has_target=True,
    has_column=False,
    shift=lambda rules, rounds: Shift.of(1, rounds),  # noqa: ARG005
)
