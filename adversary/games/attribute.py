"""The attribute of one unknown record, the first of the batch; the others are anyone's."""

from torch import Generator, Tensor

from adversary.games import ceilings
from adversary.games.game import Draws, Game, Shift, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw the first record by the secret and the others from all records."""
    rows = pool.batches(len(secrets), rules.batch, generator)
    for mark in (0, 1):
        chosen = secrets == mark
        rows[chosen, 0] = pool.drawn(int(chosen.sum()), generator, mark=mark)
    return draws_of(pool, rows, secrets)


def ceiling(rules: Rules, prior: float) -> float:
    """Return the largest AUROC: of the number of records with the attribute."""
    return ceilings.count_auroc(*ceilings.attribute_counts(rules.batch, prior))


def information(rules: Rules, prior: float) -> float:
    """Return the bits that the number of records with the attribute tells."""
    return ceilings.count_information(ceilings.attribute_counts(rules.batch, prior))


def merged_rounds(rules: Rules, rounds: int) -> Rules | None:
    """Return None for several rounds: one record per round has no closed form here."""
    return rules if rounds == 1 else None


def impute(likelihoods: Tensor, rules: Rules) -> Tensor:  # noqa: ARG001
    """Return what the record in question says of its attribute."""
    return likelihoods[:, 0]


GAME = Game(
    name="attribute",
    summary="the attribute of one unknown record of the batch",
    sample=sample,
    ceiling=ceiling,
    information=information,
    merged_rounds=merged_rounds,
    impute=impute,
    shift=lambda rules, rounds: Shift.of(1, rounds),  # noqa: ARG005
)
