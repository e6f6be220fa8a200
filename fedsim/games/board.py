"""What games are played with: two parties' records, a client, and a trained model."""

from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from adversary.games import GAMES
from adversary.games.game import Game
from adversary.games.imputation import Reader, reader
from adversary.games.learner import Learner
from adversary.games.records import Pool
from adversary.games.stand_ins import StandIn
from defenses import Defense, check_fit
from defenses import build as build_defenses
from fedsim import models
from fedsim.config import Config
from fedsim.config import Game as Section
from fedsim.core.catalog import find
from fedsim.core.devices import named, run_on
from fedsim.core.errors import ConfigError
from fedsim.core.form import Form
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.types import Auxiliary, LocalTraining, Params
from fedsim.games.pools import defenders, federated_records, pools, set_aside
from fedsim.run.device import with_batch, with_device
from fedsim.run.training import accuracy, trained_states


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
    _check_optimizer(config)
    config = with_device(config)
    federated = federated_records(config)
    dataset = federated.dataset
    if dataset.targets is not None:
        _check_next_tokens(config.game)
    model = models.build(config.model, dataset.form, seed=config.seed)
    config = with_batch(config, model, dataset.form)
    private, auxiliary = pools(config, federated)
    local = _protocol(config, min(config.game.batch_size))
    built = _fitting_defense(config, model, local, dataset.form)
    defense, rehearsed = built if config.defense else None, []
    if config.game.column is not None and built.against is not None:
        marked, private = set_aside(config, private)
        defense = built.against(marked)
        rehearsed = [
            (built.against(theirs), pool)
            for theirs, pool in defenders(config, auxiliary, len(marked.marks))
        ]
    states = _states(config, model, private, defense)
    public = Auxiliary(
        model,
        dataset.num_classes,
        vocabulary=dataset.vocabulary,
        rehearsals=Rehearsals(config.engine.batch or 1),
        device=named(config.engine.device),
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
            run_on(public.device, accuracy, model, state, dataset.test_inputs, dataset.test_y)
            for state in states
        ),
    )


def _check_optimizer(config: Config) -> None:
    """Refuse clients whose updates are no sums of gradients.

    Raises:
        ConfigError: They are.
    """
    if config.local.optimizer != "sgd":
        raise ConfigError(
            "local.optimizer: must be 'sgd' in a game, which reads an upload as a sum of "
            f"gradients, got '{config.local.optimizer}'"
        )


def _fitting_defense(config: Config, model: nn.Module, local: LocalTraining, form: Form) -> Defense:
    """Return the client's defense.

    Raises:
        ConfigError: It does not do what it says with this model or this batch.
    """
    built = build_defenses(config.defense)
    try:
        check_fit(built, model, local, [min(config.game.batch_size)], form)
    except ValueError as error:
        raise ConfigError(f"defense.{error}") from None
    return built


def _states(
    config: Config, model: nn.Module, private: Pool, defense: Defense | None
) -> tuple[Params, ...]:
    section = config.game
    return run_on(
        named(config.engine.device),
        trained_states,
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
