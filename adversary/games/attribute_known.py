"""The attribute of a known record, anyone's, is set by a fair coin: the counterfactual."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from adversary.games.game import Draws, Game, Shift, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw batches from all records, and set the attribute of the first record by the secret.

    Raises:
        ValueError: The attribute is no input of the model.
    """
    if pool.encoding is None:
        raise ValueError("column: must be a model input to be set in a known record, got none")
    draws = draws_of(pool, pool.batches(len(secrets), rules.batch, generator), secrets)
    first = draws.inputs[:, 0]
    values = [pool.encoding.put(first, torch.full_like(secrets, mark)) for mark in (0, 1)]
    draws.inputs[:, 0] = pool.encoding.put(first, secrets)
    return replace(draws, targets=torch.stack(values, dim=1), target_labels=draws.labels[:, 0])


GAME = Game(
    name="attribute-known",
    summary="the attribute of a known record",
    sample=sample,
    has_target=True,
    shift=lambda rules, rounds: Shift.of(1, rounds),  # noqa: ARG005
)
