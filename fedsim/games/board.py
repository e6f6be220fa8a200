"""What games are played with: two parties' records, a client, and a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adversary.games import GAMES
from adversary.games.learner import Learner
from adversary.games.records import Pool
from defenses import build as build_defenses
from fedsim import data, models
from fedsim.config import Config
from fedsim.core.catalog import find
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Params
from fedsim.run import overlap
from fedsim.run.secret_columns import encoding, marks
from fedsim.run.training import trained_states


@dataclass(frozen=True)
class Board:
    """What the games of one config are played with.

    Attributes:
        private: The challenger's records.
        auxiliary: The adversary's.
        learner: The client.
        states: The model's weights before every round.
    """

    config: Config
    private: Pool
    auxiliary: Pool
    learner: Learner
    states: tuple[Params, ...]

    def client(self, batch: int) -> Learner:
        """Return the client of a game with so many records per update."""
        return replace(self.learner, local=_protocol(self.config, batch))


def prepare(config: Config) -> Board:
    """Load the data, train the model, and split the records between challenger and adversary.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
    """
    check(config)
    alone = config.federation.model_copy(update={"clients": 1})
    held = config.auxiliary.share or 0.1
    shared = config.auxiliary.model_copy(update={"share": held})
    federated = data.federate(config.model_copy(update={"federation": alone, "auxiliary": shared}))
    dataset, mine = federated.dataset, federated.clients[0]
    model = models.build(config.model, dataset.input_shape, dataset.num_classes, seed=config.seed)
    asked, coded = config.game, None
    if asked.column is None:
        found = torch.zeros(len(dataset.labels), dtype=torch.int64)
    else:
        found = marks(asked, dataset, users="user" in asked.play)
        coded = encoding(asked, dataset)
    known = _known(config, dataset, federated.auxiliary)
    overlap.check(
        replace(federated, auxiliary=known), allowed=config.auxiliary.overlap, seed=config.seed
    )
    pools = [Pool(dataset.inputs[rows], dataset.labels[rows], found[rows], coded)
             for rows in (mine, known)]  # fmt: skip
    private, auxiliary = pools
    for pool, whose in ((private, "private"), (auxiliary, "auxiliary")):
        _check_pool(config, pool, whose)
    local = _protocol(config, min(config.game.batch_size))
    defense = build_defenses(config.defense)
    try:
        defense.check(model, local, [min(config.game.batch_size)])
    except ValueError as error:
        raise ConfigError(f"defense.{error}") from None
    learner = Learner(
        Auxiliary(model, dataset.num_classes, defense=defense if config.defense else None), local
    )
    return Board(config, private, auxiliary, learner, _states(config, model, private))


def _states(config: Config, model: nn.Module, private: Pool) -> tuple[Params, ...]:
    game = config.game
    return trained_states(
        model,
        private,
        config.local_training(),
        seed=config.seed,
        steps=game.steps,
        every=game.every,
        rounds=max(game.rounds),
    )


def _protocol(config: Config, batch: int) -> LocalTraining:
    """Return how a client of so many records trains.

    A gradient is of all its records at once: no defense may count on its having sampled them.
    """
    local = replace(config.local_training(), upload=config.game.upload)
    return replace(local, batch_size=batch) if local.upload == "gradient" else local


def _known(config: Config, dataset: data.Dataset, rows: Tensor) -> Tensor:
    """Return the rows that the adversary has: some, or with another distribution of labels."""
    asked, stream = config.game, generator(config.seed, "game auxiliary")
    if asked.shift:
        first = dataset.labels[rows] == 0
        rows = rows[~first | (torch.rand(len(rows), generator=stream) >= asked.shift)]
    if asked.auxiliary is not None:
        rows = rows[torch.randperm(len(rows), generator=stream)[: asked.auxiliary]]
    return rows


def _check_pool(config: Config, pool: Pool, whose: str) -> None:
    if config.game.column is None:
        wanted: Sequence[int] = ()
    else:
        wanted = range(config.game.users) if "user" in config.game.play else (0, 1)
    for mark in wanted:
        if not bool((pool.marks == mark).any()):
            raise ConfigError(
                f"game: {whose} records must have every value of the secret, got none of {mark}"
            )
    if "attribute-known" in config.game.play and pool.encoding is None:
        raise ConfigError(
            "game.column: must be a categorical input for attribute-known, "
            f"got '{config.game.column}'"
        )


def check(config: Config) -> None:
    """Refuse what can be seen to be wrong without the data.

    Raises:
        ConfigError: A name is unknown, or an option does not go with another.
    """
    for name in config.game.play:
        find("game.play", name, GAMES)
    needs = [name for name in config.game.play if GAMES[name].has_column]
    if needs and config.game.column is None:
        raise ConfigError(f"game.column: must name the secret column of {needs[0]}, got none")
    if "user" in config.game.play and len(config.game.play) > 1:
        raise ConfigError("game.play: 'user' must be played alone, its secret is the column")
    if "property" in config.game.play and config.game.count > min(config.game.batch_size):
        raise ConfigError(
            f"game.count: must be at most every batch size, got {config.game.count} "
            f"with {min(config.game.batch_size)}"
        )
