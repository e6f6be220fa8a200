"""Clients that the adversary rehearses with, where the defense uses records it does not have."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Int
from torch import Tensor

from adversary.games.game import Draws, Game
from adversary.games.learner import Learner
from adversary.games.records import Pool
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules


@dataclass(frozen=True, eq=False)
class StandIn:
    """A client whose defense is of the adversary's own making.

    Attributes:
        learner: The client.
        pool: The adversary's records but those of this defense: its shadow trials are of these.
    """

    learner: Learner
    pool: Pool


def split(shadows: int, cut: int, clients: int) -> list[slice]:
    """Return the trials that each stand-in defends: all before the cut, or all after it.

    Args:
        shadows: How many trials there are.
        cut: Predictors are fitted on those before it, and chosen on the others.
        clients: Stand-ins; the last quarter of them, or so, defends the trials after the cut.
    """
    if clients < 2:
        return [slice(None)] * clients
    fitted = fitting(clients, cut / shadows)
    kept = clients - fitted
    ends = [round(cut * k / fitted) for k in range(fitted)]
    ends += [cut + round((shadows - cut) * k / kept) for k in range(kept + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def fitting(clients: int, share: float) -> int:
    """Return how many of several stand-ins defend the trials that predictors are fitted on.

    Args:
        clients: Two or more.
        share: Of the trials.
    """
    return min(clients - 1, max(1, round(clients * share)))


def drawn(
    game: Game,
    rules: Rules,
    stand_ins: Sequence[StandIn],
    shares: Sequence[slice],
    secrets: Int[Tensor, " n"],
    seed: int,
    *names: object,
) -> Draws:
    """Return the shadow trials of all stand-ins, in order, each from its own pool.

    Args:
        game: Which.
        rules: What it leaves open.
        stand_ins: One for each share.
        shares: As `split` returns them.
        secrets: The class of each trial.
        seed: Of the random streams.
        *names: Theirs.
    """
    parts = [
        game.sample(one.pool, rules, secrets[rows], generator(seed, *names, place))
        for place, (one, rows) in enumerate(zip(stand_ins, shares, strict=True))
    ]
    return Draws.joined(parts)
