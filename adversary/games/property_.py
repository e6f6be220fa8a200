"""A property of the batch: some of its records have it, or none has."""

from torch import Generator, Tensor

from adversary.games.game import Draws, Game, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw records without the property, and put those with it first if the secret says so."""
    if rules.count > rules.batch:
        raise ValueError(f"count: must be at most the batch size {rules.batch}, got {rules.count}")
    rows = pool.drawn(len(secrets) * rules.batch, generator, mark=0)
    rows, having = rows.view(len(secrets), rules.batch), secrets == 1
    some = pool.drawn(int(having.sum()) * rules.count, generator, mark=1)
    rows[having, : rules.count] = some.view(-1, rules.count)
    return draws_of(pool, rows, secrets)


GAME = Game(
    name="property",
    summary="whether any record of the batch has the property",
    sample=sample,
    single_record=True,
)
