"""What a run needs at a client, as its operator lets it: data, model, defenses."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

import defenses
from clients.operator import Operator, Refused, agreed, parse_defense
from defenses import Defense, check_fit
from fedsim import config as configs
from fedsim import data, models
from fedsim.config import Config
from fedsim.config.outside import SIGNS, names_outside
from fedsim.core.accepts import Rule
from fedsim.core.devices import named
from fedsim.core.paths import user_path
from fedsim.core.types import LocalTraining
from fedsim.models.copying import copied, keeps_nothing

NAMES = Rule(
    "run at a node", "data, model, defenses", "must be fedsim's own or allowed by this node"
)
FILES = Rule(
    "run at a node", "`data.users`", "must be a column, a file in this node's data-root, or allowed"
)
CHECKS = (NAMES, FILES)
HERE = ("data.", "model.", "defense.")  # what a run names and a client builds


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a run needs at a client, as its operator lets it.

    Attributes:
        config: The run's, with the operator's data and defenses.
        moved: Names in the model's state that training moves by itself, so that no ε covers it.
        base: Hash of the model's frozen parameters; empty where it has none.
    """

    config: Config
    federated: data.Federated
    model: nn.Module
    trainable: tuple[str, ...]
    defense: Defense
    moved: tuple[str, ...] = ()
    own_data: bool = False
    base: str = ""

    @cached_property
    def device(self) -> torch.device:
        """Where clients train."""
        return named(self.config.engine.device)

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The model's own state; it shares the model's memory."""
        return self.model.state_dict()

    @cached_property
    def reused(self) -> nn.Module | None:
        """The copy that every client trains; None where each has a new one, and may draw numbers.

        It is there if the layers keep and draw nothing, and no defense has a part in training.
        """
        foreign = self.defense.gradient is not None or self.defense.batches is not None
        return None if foreign or not keeps_nothing(self.model) else self.new_model()

    def working_model(self) -> nn.Module:
        """Return a copy of the model to train, on the device."""
        return self.new_model() if self.reused is None else self.reused

    def new_model(self) -> nn.Module:
        """Return a new copy of the model, on the device."""
        model = copied(self.model)
        return model if self.device.type == "cpu" else model.to(self.device)

    def local(self, proximal_mu: float) -> LocalTraining:
        """Return how clients train, with FedProx's pull; one object for all of them."""
        if proximal_mu not in self._locals:
            self._locals[proximal_mu] = self.config.local_training(proximal_mu)
        return self._locals[proximal_mu]

    @cached_property
    def _locals(self) -> dict[float, LocalTraining]:
        return {}

    def rows(self, client: str) -> Tensor:
        """Return the rows of the training set that are a client's.

        Raises:
            Refused: The run has no such client.
        """
        if self.own_data:
            return self.federated.clients[0]
        if int(client) >= len(self.federated.clients):
            raise Refused(
                f"node partition-id: must be below federation.clients = "
                f"{len(self.federated.clients)}, got {client}"
            )
        return self.federated.clients[int(client)]


def site(text: str, operator: Operator) -> Site:
    """Return what a run asks for, where the operator lets it.

    Clients of one process share it.

    Args:
        text: The run's config as JSON.
        operator: Of this node.

    Raises:
        Refused: The run asks for other defenses than the operator's, or for code of its own.
        ConfigError: The config or the data are not what they must be.
    """
    allowed = None if operator.simulated else operator.allowed
    key = (operator.root, operator.own_data, operator.defense, allowed, operator.device)
    return _site(text, *key)


@lru_cache(maxsize=1)
def _site(
    text: str,
    root: str | None,
    own_data: bool,
    defense: str,
    allowed: tuple[str, ...] | None,
    device: str,
) -> Site:
    run, insisted = configs.parse_json(text), parse_defense(defense)
    if allowed is not None:
        engine = run.engine.model_copy(update={"device": device})  # not the server's to say
        run = run.model_copy(update={"engine": engine})
        users = _checked_users(run, root, allowed)
        if root is not None:  # which is then not the run's
            run = run.model_copy(update={"data": run.data.model_copy(update={"root": None})})
        _check_names(run, {*allowed, *(part.name for part in insisted)})
        run = run.model_copy(update={"data": run.data.model_copy(update={"users": users})})
        if run.federation.secure_aggregation:
            raise Refused(
                "federation.secure_aggregation: must be false between real machines, got true; "
                "the server could remove its simulated masks"
            )
    changes: dict[str, object] = {"defense": agreed(run.defense, insisted)}
    if root is not None:
        changes["data"] = run.data.model_copy(update={"root": root})
    if own_data:  # all of it, whatever the run would take of its own
        whole = {"root": root, "limit": None, "users": None, "partition": "iid"}
        changes["data"] = run.data.model_copy(update=whole)
    config = run.model_copy(update=changes)
    federated = data.alone(config.data, config.seed) if own_data else data.federate(config)
    dataset = federated.dataset
    model = models.build(config.model, dataset.form, seed=config.seed)
    built = defenses.build(config.defense)
    moved = models.moved_state(model, dataset.form) if built.promise.formal else ()
    if insisted:  # what the run lists was checked by its server
        local, sizes = config.local_training(), [len(rows) for rows in federated.clients]
        try:
            check_fit(built, model, local, sizes, dataset.form)
        except ValueError as error:
            raise Refused(f"node defense.{error}") from None
    return Site(
        config=config,
        federated=federated,
        model=model,
        trainable=models.trainable(model),
        defense=built,
        moved=moved,
        own_data=own_data,
        base=models.digest_of_base(model),
    )


def _check_names(run: Config, allowed: Iterable[str]) -> None:
    """Let a server choose among the parts installed here, and name nothing else of this machine.

    Raises:
        Refused: The run names a module's function, or a path.
    """
    for key, name in names_outside(run):
        if key.startswith(HERE) and key != "data.users" and name not in allowed:
            raise Refused(f"{key}: {NAMES.rule}, got '{name}'")


def _checked_users(run: Config, root: str | None, allowed: Iterable[str]) -> str | None:
    """Return the column of user ids that a run names, or the path of their file in `data-root`.

    Raises:
        Refused: It is a file of this machine that is neither in `data-root` nor allowed.
    """
    users = run.data.users
    if users is None or users in allowed:
        return users
    user_path("data.users", users)
    if root is not None:
        folder = Path(root).expanduser().resolve()
        file = (folder / users).resolve()
        if file.is_relative_to(folder) and file.is_file():
            return str(file)
    if any(sign in users for sign in (*SIGNS, "..", "\0")) or Path(users).exists():
        raise Refused(f"data.users: {FILES.rule}, got '{users}'")
    return users
