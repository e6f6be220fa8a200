"""What games are played with: two parties' records, a client, and a trained model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from adversary.games import GAMES
from adversary.games.game import Game
from adversary.games.imputation import Reader, reader
from adversary.games.learner import Learner
from adversary.games.predictors import VALIDATION
from adversary.games.records import Pool
from adversary.games.stand_ins import StandIn, fitting
from defenses import Defense, Marked, check_fit
from defenses import build as build_defenses
from fedsim import data, models
from fedsim.config import Config
from fedsim.config import Game as Section
from fedsim.core.catalog import find
from fedsim.core.errors import ConfigError
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Params
from fedsim.run import overlap
from fedsim.run.secret_columns import encoding, marks, telling_features
from fedsim.run.training import accuracy, trained_states

STAND_INS = 12  # defenders that the adversary rehearses, of a defense with records of its own


@dataclass(frozen=True, kw_only=True)
class Board:
    """What the games of one config are played with.

    Attributes:
        config: The setting.
        private: The challenger's records.
        auxiliary: The adversary's.
        learner: The client.
        stand_ins: Clients as the adversary rehearses them, if the defense uses marked records: the
            client's are in no trial, and each stand-in's in none that it defends. None of a defense
            without such records.
        states: The model's weights before every round.
        defense: The client's; None without any.
        accuracies: Of the model at each of the states, on test records; NaN without any.
    """

    config: Config
    private: Pool
    auxiliary: Pool
    learner: Learner
    stand_ins: tuple[StandIn, ...]
    states: tuple[Params, ...]
    defense: Defense | None
    accuracies: tuple[float, ...]

    @cached_property
    def read(self) -> Reader:
        """What records say of the secret, as far as the adversary's own records teach it."""
        return reader(self.auxiliary, seed=self.config.seed)

    def client(self, batch: int) -> Learner:
        """Return the client of a game with so many records per update."""
        return replace(self.learner, local=_protocol(self.config, batch))

    def rehearsed(self, batch: int) -> list[StandIn]:
        """Return the stand-ins of the same game."""
        local = _protocol(self.config, batch)
        return [replace(one, learner=replace(one.learner, local=local)) for one in self.stand_ins]


def prepare(config: Config) -> Board:
    """Load the data, train the model, and split the records between challenger and adversary.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
    """
    check(config.game)
    if config.local.optimizer != "sgd":
        raise ConfigError(
            "local.optimizer: must be 'sgd' in a game, which reads an upload as a sum of "
            f"gradients, got '{config.local.optimizer}'"
        )
    federated = _federated(config)
    dataset = federated.dataset
    if dataset.targets is not None:
        _check_next_tokens(config.game)
    model = models.build(config.model, dataset.form, seed=config.seed)
    private, auxiliary = _pools(config, federated)
    local = _protocol(config, min(config.game.batch_size))
    built = build_defenses(config.defense)
    try:
        check_fit(built, model, local, [min(config.game.batch_size)], dataset.form)
    except ValueError as error:
        raise ConfigError(f"defense.{error}") from None
    defense, rehearsed = built if config.defense else None, []
    if config.game.column is not None and built.against is not None:
        marked, private = _set_aside(config, private)
        defense = built.against(marked)
        rehearsed = [
            (built.against(theirs), pool)
            for theirs, pool in _defenders(config, auxiliary, len(marked.marks))
        ]
    states = _states(config, model, private, defense)
    public = Auxiliary(
        model,
        dataset.num_classes,
        vocabulary=dataset.vocabulary,
        rehearsals=Rehearsals(config.engine.batch or 1),
    )
    return Board(
        config=config,
        private=private,
        auxiliary=auxiliary,
        learner=Learner(replace(public, defense=defense), local),
        stand_ins=tuple(
            StandIn(Learner(replace(public, defense=each), local), pool) for each, pool in rehearsed
        ),
        states=states,
        defense=defense,
        accuracies=tuple(
            accuracy(model, state, dataset.test_inputs, dataset.test_y) for state in states
        ),
    )


def _federated(config: Config) -> data.Federated:
    """Return the challenger's records as one client's, and the adversary's, which are disjoint."""
    alone = config.federation.model_copy(update={"clients": 1})
    shared = config.auxiliary.model_copy(update={"share": config.auxiliary.share or 0.1})
    federated = data.federate(config.model_copy(update={"federation": alone, "auxiliary": shared}))
    rows = _auxiliary_rows(config.game, federated.dataset, federated.auxiliary, config.seed)
    return replace(federated, auxiliary=rows)


def _auxiliary_rows(section: Section, dataset: data.Dataset, rows: Tensor, seed: int) -> Tensor:
    """Return the rows that the adversary has: some, or with another distribution of labels."""
    stream = generator(seed, "game auxiliary")
    if section.shift:
        first = dataset.labels[rows] == 0
        rows = rows[~first | (torch.rand(len(rows), generator=stream) >= section.shift)]
    if section.auxiliary is not None:
        rows = rows[torch.randperm(len(rows), generator=stream)[: section.auxiliary]]
    return rows


def _pools(config: Config, federated: data.Federated) -> tuple[Pool, Pool]:
    """Return the challenger's records and the adversary's, with their marks."""
    section, dataset, coded = config.game, federated.dataset, None
    telling: frozenset[int] = frozenset()
    if section.column is None:
        marked = torch.zeros(len(dataset.labels), dtype=torch.int64)
    else:
        marked = marks(section, dataset, users="user" in section.play)
        coded = encoding(section, dataset)
        telling = telling_features(section, dataset)
    overlap.check(federated, allowed=config.auxiliary.overlap, seed=config.seed)
    private, auxiliary = (
        Pool(dataset.inputs[rows], dataset.y[rows], marked[rows], coded, telling=telling)
        for rows in (federated.clients[0], federated.auxiliary)
    )
    _check_pool(section, private, "private")
    _check_pool(section, auxiliary, "auxiliary")
    return private, auxiliary


def _set_aside(config: Config, pool: Pool) -> tuple[Marked, Pool]:
    """Return a share of the client's records with their marks, and the others."""
    count = len(pool.labels)
    order = torch.randperm(count, generator=generator(config.seed, "game defender", "private"))
    cut = round(config.game.defender * count)
    marked, rest = _marked(pool, order[:cut].sort().values), _without(pool, order[:cut])
    _check_pool(config.game, rest, "private")
    if len(marked.marks.unique()) < 2:
        raise ConfigError(
            f"game.defender: must set aside private records with two values of the secret, "
            f"got {cut} of one"
        )
    return marked, rest


def _defenders(config: Config, pool: Pool, size: int) -> Iterator[tuple[Marked, Pool]]:
    """Yield the adversary's records for each stand-in's defense, and those of its trials.

    Stand-ins that predictors are chosen on have records of one half of the adversary's, the others
    of the other half: what is read off the latter's defenses only is then not chosen. What is
    fitted to n records varies by V/n about the truth. The client's has n, and lies V/n + V/F from
    the mean of stand-ins that know F others. So far from it are those fitted to samples with
    repetition of n F/(n + F) of these, and to n records of the other half.

    Args:
        config: With the seed.
        pool: The adversary's.
        size: n, of the client's defense.
    """
    count = len(pool.labels)
    order = torch.randperm(count, generator=generator(config.seed, "game defender", "auxiliary"))
    halves, fitted = order.chunk(2), fitting(STAND_INS, 1 - VALIDATION)
    for place in range(STAND_INS):
        stream, half = generator(config.seed, "game stand-in", place), halves[place >= fitted]
        if place < fitted:
            sample = max(2, round(size * len(half) / (size + len(half))))
            rows = half[torch.randint(len(half), (sample,), generator=stream)]
        else:
            rows = half[torch.randperm(len(half), generator=stream)[:size]]
        rest = _without(pool, rows)
        _check_pool(config.game, rest, "auxiliary")
        yield _marked(pool, rows), rest


def _marked(pool: Pool, rows: Tensor) -> Marked:
    return Marked(pool.inputs[rows], pool.labels[rows], pool.marks[rows])


def _without(pool: Pool, rows: Tensor) -> Pool:
    """Return the records of a pool but some."""
    left = torch.ones(len(pool.labels), dtype=torch.bool)
    left[rows] = False
    return replace(pool, inputs=pool.inputs[left], labels=pool.labels[left], marks=pool.marks[left])


def _states(
    config: Config, model: nn.Module, private: Pool, defense: Defense | None
) -> tuple[Params, ...]:
    section = config.game
    return trained_states(
        model,
        private,
        config.local_training(),
        seed=config.seed,
        steps=section.steps,
        every=section.every,
        rounds=max(section.rounds),
        defense=defense,
    )


def _protocol(config: Config, batch: int) -> LocalTraining:
    """Return how a client of so many records trains.

    A gradient is of all its records at once: no defense may count on its having sampled them.
    """
    local = replace(config.local_training(), upload=config.game.upload)
    return replace(local, batch_size=batch) if local.upload == "gradient" else local


def _check_pool(section: Section, pool: Pool, whose: str) -> None:
    values = range(section.users) if "user" in section.play else (0, 1)
    for mark in () if section.column is None else values:
        if not bool((pool.marks == mark).any()):
            raise ConfigError(
                f"game: {whose} records must have every value of the secret, got none of {mark}"
            )
    if "attribute-known" in section.play and pool.encoding is None:
        raise ConfigError(
            f"game.column: must be a categorical input for attribute-known, got '{section.column}'"
        )


def played_of(section: Section) -> list[Game]:
    """Return the games that a config plays.

    Raises:
        ConfigError: A name is unknown.
    """
    return [find("game.play", name, GAMES) for name in section.play]


def _check_next_tokens(section: Section) -> None:
    """Refuse games whose secret is about classes or columns, which texts of next tokens lack.

    Raises:
        ConfigError: There is such a game.
    """
    able = [game.name for game in GAMES.values() if game.has_target and not game.has_column]
    if others := [name for name in section.play if name not in able]:
        raise ConfigError(
            f"game.play: must be {' or '.join(able)} where data.task = 'next', got '{others[0]}'; "
            "data.task = 'label' has every game"
        )
    if not section.knows_label:
        raise ConfigError(
            "game.knows_label: must be true where data.task = 'next', got false: the next tokens "
            "of a known text are known"
        )


def check(section: Section) -> None:
    """Refuse what can be known to be wrong without the data.

    Raises:
        ConfigError: A name is unknown, or an option does not go with another.
    """
    of_column = [game.name for game in played_of(section) if game.has_column]
    if of_column and section.column is None:
        without = next(game.name for game in GAMES.values() if not game.has_column)
        raise ConfigError(
            f"game.column: must name the secret column of {of_column[0]}, got none; "
            f"--set game.play={without} needs none"
        )
    if "user" in section.play and len(section.play) > 1:
        raise ConfigError("game.play: 'user' must be played alone, its secret is the column")
    if "property" in section.play and section.count > min(section.batch_size):
        raise ConfigError(
            f"game.count: must be at most every batch size, got {section.count} "
            f"with {min(section.batch_size)}"
        )
