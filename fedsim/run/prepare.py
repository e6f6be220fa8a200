"""The plan of a run: a config in; everything built and checked out, before anything is written."""

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

import strategies
from adversary.attack import Attack
from adversary.grading import perceptual, selection
from adversary.grading.families import FAMILIES
from adversary.secrets import SECRETS
from defenses import Defense, check_fit
from defenses import build as build_defenses
from fedsim import data, models
from fedsim.config import Config, Federation, Game, Part, Source
from fedsim.core.boundary import boundary
from fedsim.core.devices import named
from fedsim.core.errors import ConfigError
from fedsim.core.memory import Memory
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, Candidates, LocalTraining
from fedsim.run import overlap
from fedsim.run.batches import check_batches
from fedsim.run.claims import check_audit
from fedsim.run.default_attacks import with_attacks
from fedsim.run.device import with_batch, with_device
from fedsim.run.questions import draw_questions
from fedsim.run.ranges import AskedRanges
from fedsim.run.secret_columns import encoding, marks
from fedsim.run.usage_sets import AskedSets
from strategies.masking import Protocol


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run needs, built and checked before anything is written.

    Attributes:
        moved: Names in the model's state that training moves by itself, so that no ε covers it.
        candidates: Rows of the training set that the adversary asks about, −1 for a test row.
        ranges: The adversary's ranges, and the training rows in them.
        sets: The adversary's sets, and the training rows in them.
        marks: Family of secrets → a mark per training row.
        memory: What attacks compute once for the whole run.
    """

    config: Config
    federated: data.Federated
    model: nn.Module
    strategy: strategies.Strategy
    defense: Defense
    auxiliary: Auxiliary
    attacks: Sequence[Attack]
    moved: tuple[str, ...] = ()
    candidates: Tensor | None = None
    ranges: AskedRanges | None = None
    sets: AskedSets | None = None
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory, repr=False)

    @property
    def local(self) -> LocalTraining:
        """How clients train, as the strategy will tell them."""
        return self.config.local_training(float(getattr(self.strategy, "proximal_mu", 0.0)))

    @property
    def sources(self) -> Mapping[str, Source] | None:
        """Name in the model → array on tape, of another app's recording."""
        return self.config.foreign.arrays if self.config.foreign else None


def with_versions(config: Config) -> Config:
    """Return the config with the versions of what runs it."""
    names = ("fedsim", "flwr", "torch", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return config.model_copy(update={"versions": {"python": platform.python_version(), **versions}})


def prepare(config: Config) -> Plan:
    """Build data, model, strategy, defenses and attacks.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
    """
    config = with_device(config)
    if config.grading.lpips:
        perceptual.check()
    federated = data.federate(config)
    sizes = [len(rows) for rows in federated.clients]
    _check_sums(config.federation, max(sizes))
    overlap.check(federated, allowed=config.auxiliary.overlap, seed=config.seed)
    dataset = federated.dataset
    config = with_attacks(config, dataset.form.kind)
    model = models.build(config.model, dataset.form, seed=config.seed)
    config = with_batch(config, model, dataset.form)
    _check_counters(config.federation, model)
    defense, moved = _checked_defense(config, model, dataset, sizes)
    check_audit(config, defense, moved, sizes)
    check_batches(config, defense, model, dataset, sizes)
    questions = draw_questions(config, federated)
    marked = _marks(config.attack, config.game, dataset)
    auxiliary = replace(
        _auxiliary(config, federated, model=model, defense=defense, marked=marked),
        candidates=questions.candidates,
        ranges=questions.ranges.ranges if questions.ranges else None,
        sets=questions.sets.sets if questions.sets else None,
    )
    attacks = selection.build(config.attack, auxiliary)
    _check_clients(attacks, config.federation, len(sizes))
    _check_rounds(attacks, config)
    buffers = set(model.state_dict()) - set(models.trainable(model))
    return Plan(
        config=config,
        federated=federated,
        model=model,
        strategy=strategies.build(config.federation, lr=config.local.lr, buffers=buffers),
        defense=defense,
        auxiliary=auxiliary,
        attacks=attacks,
        moved=moved,
        candidates=questions.rows,
        ranges=questions.ranges,
        sets=questions.sets,
        marks=marked,
    )


def _check_sums(federation: Federation, largest: int) -> None:
    """Refuse secure aggregation whose numbers cannot hold the clients' weights.

    Args:
        federation: The section of the config.
        largest: Number of examples of the client that has most.

    Raises:
        ConfigError: They cannot.
    """
    protocol, count = federation.secure_aggregation, federation.sampled
    if protocol is None:
        return
    if largest > protocol.max_examples:
        raise ConfigError(
            "federation.secure_aggregation.max_examples: must be at least the largest client's "
            f"{largest}, got {protocol.max_examples}"
        )
    Protocol(round=0, members=tuple(map(str, range(count))), **protocol.model_dump())


def _check_counters(federation: Federation, model: nn.Module) -> None:
    """Refuse secure aggregation of whole numbers.

    Raises:
        ConfigError: The model has some.
    """
    whole = [name for name, value in model.state_dict().items() if not value.is_floating_point()]
    if federation.secure_aggregation and whole:
        raise ConfigError(
            "federation.secure_aggregation: must go with a model without counters, such as batch "
            f"normalisation's, which no clip bounds, got {whole[0]}"
        )


def _checked_defense(
    config: Config, model: nn.Module, dataset: data.Dataset, sizes: Sequence[int]
) -> tuple[Defense, tuple[str, ...]]:
    """Return the clients' defenses, and the state that no ε of theirs covers.

    Raises:
        ConfigError: A defense does not do what it says with this model or these clients.
    """
    defense = build_defenses(config.defense)
    with boundary("defense", "must fit the model and the clients"):
        try:
            moved = check_fit(defense, model, config.local_training(), sizes, dataset.form)
        except ValueError as error:
            raise ConfigError(f"defense.{error}") from None
    return defense, moved


def _marks(attacks: Iterable[Part], game: Game, dataset: data.Dataset) -> dict[str, Tensor]:
    """Return a mark per training row for each family of secrets that attacks guess."""
    families = {attack.family for attack in selection.listed(attacks)} & {"attribute", *SECRETS}
    return {family: marks(game, dataset, users=family == "user") for family in families}


def _auxiliary(
    config: Config,
    federated: data.Federated,
    *,
    model: nn.Module,
    defense: Defense,
    marked: Mapping[str, Tensor],
) -> Auxiliary:
    """Return what the adversary knows before round 1."""
    dataset, held_out, game = federated.dataset, federated.auxiliary, config.game
    return Auxiliary(
        model=model,
        num_classes=dataset.num_classes,
        inputs=dataset.inputs[held_out] if len(held_out) else None,
        labels=dataset.y[held_out] if len(held_out) else None,
        defense=defense if config.defense and config.auxiliary.knows_defense else None,
        input_shape=dataset.input_shape,
        schema=dataset.schema,
        vocabulary=dataset.vocabulary,
        per_token=dataset.targets is not None,
        canaries=None
        if federated.canary is None
        else Candidates(federated.canary.inputs, federated.canary.targets),
        marks={family: of[held_out] for family, of in marked.items()} if marked else None,
        encoding=encoding(game, dataset) if "attribute" in marked else None,
        rules=Rules(1, game.shares, game.count, game.own, game.users) if marked else None,
        rehearsals=Rehearsals(config.engine.batch or 1),
        device=named(config.engine.device),
    )


def _check_rounds(attacks: Iterable[Attack], config: Config) -> None:
    """Refuse an attack that compares rounds where it never has two, or that is for some clients.

    Raises:
        ConfigError: There is one.
    """
    recorded = [r for r in range(1, config.federation.rounds + 1) if config.record.keeps(r)]
    for attack in attacks:
        if not FAMILIES[attack.family].of_round:
            continue
        if attack.clients is not None:
            raise ConfigError(
                f"attack.{attack.name}.clients: must be left out by an attack on clients without "
                f"names, got {list(attack.clients)}"
            )
        if not any(attack.is_due(round_) for round_ in recorded[1:]):
            raise ConfigError(
                f"attack.{attack.name}: must be run on a round that has a recorded one before it, "
                f"got recorded rounds {recorded[:3]}, and every {attack.every} attacked"
            )


def _check_clients(attacks: Iterable[Attack], federation: Federation, count: int) -> None:
    """Refuse an attack on single clients that do not exist or that the server cannot see.

    Raises:
        ConfigError: There is one.
    """
    for attack in attacks:
        if federation.secure_aggregation and attack.clients is not None:
            raise ConfigError(
                f"attack.{attack.name}.clients: must be left out with secure aggregation, which "
                f"shows no client, got {list(attack.clients)}"
            )
        if unknown := {*(attack.clients or ())} - set(map(str, range(count))):
            raise ConfigError(
                f"attack.{attack.name}.clients: must be client numbers below {count}, "
                f"got '{min(unknown)}'"
            )
