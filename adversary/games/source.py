"""Source: one of several clients holds the record in question, first in its batch."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from adversary.games.game import Draws, Game, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw a batch per client; the record in question is the first of the secret's client."""
    rows = pool.batches(len(secrets), rules.users * rules.batch, generator)
    of_clients = rows.view(len(secrets), rules.users, rules.batch)
    target = of_clients[torch.arange(len(secrets)), secrets, 0]
    return replace(
        draws_of(pool, rows, secrets),
        targets=pool.inputs[target][:, None],
        target_labels=pool.labels[target],
        clients=rules.users,
    )


GAME = Game(
    name="source",
    summary="which client holds a known record",
    sample=sample,
    classes=lambda rules: rules.users,
    has_target=True,
    has_column=False,
)
