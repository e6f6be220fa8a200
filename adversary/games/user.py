"""A user: a share of the records is of the user that the secret names, the rest is anyone's."""

import torch
from torch import Generator, Tensor

from adversary.games.game import Draws, Game, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw batches from all records, then a share of each from its user's records."""
    rows = pool.batches(len(secrets), rules.batch, generator)
    of_user = torch.rand(len(secrets), rules.batch, generator=generator) < rules.user_share
    for user in range(rules.users):
        places = of_user & (secrets == user)[:, None]
        rows[places] = pool.drawn(int(places.sum()), generator, mark=user)
    return draws_of(pool, rows, secrets)


def impute(likelihoods: Tensor, rules: Rules) -> Tensor:
    """Return log p(records | user); a record that is anyone's says nothing."""
    share = rules.user_share
    return (share * likelihoods.exp() + 1 - share).clamp(min=1e-30).log().sum(dim=1)


GAME = Game(
    name="user",
    summary="whose records they are",
    sample=sample,
    classes=lambda rules: rules.users,
    impute=impute,
)
