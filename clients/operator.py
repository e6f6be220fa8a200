"""What a client's own operator decides, whatever the server asks for: data, defenses, code.

The operator's settings stand in the node's config (`flower-supernode --node-config FILE.toml`),
which the server neither sees nor writes:

    partition-id    which client this is
    data-root       folder of the data, in place of the run's data.root; a run may name files in it
    own-data        true: every training row in it is this client's
    defense         a TOML file, or TOML text, with [[defense]] tables as in a run's config
    allow           what else a run may name: parts with code of their own, folders, files,
                    "package.module:name, /path, …"
    seed            of the defenses' coins; only to repeat an experiment
    device          where its arithmetic runs: "cpu" (default), "cuda", "mps" or "auto"
    truth           folder for this client's ground truth
    consent-audit   true: a run that is audited may have this client carry canaries; without, it
                    trains as always, keeps no coins, and the audit does not count it
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

import defenses
from defenses import Defense, check_fit
from fedsim import config as configs
from fedsim import data, models
from fedsim.config import Config, Part
from fedsim.config.outside import SIGNS, names_outside
from fedsim.core.accepts import Rule
from fedsim.core.devices import named, resolved
from fedsim.core.errors import ConfigError, FedsimError
from fedsim.core.paths import user_path
from fedsim.core.rng import generator, secret_generator
from fedsim.models.copying import copied, keeps_nothing

NAMES = Rule(
    "run at a node", "data, model, defenses", "must be fedsim's own or allowed by this node"
)
FILES = Rule(
    "run at a node", "`data.users`", "must be a column, a file in this node's data-root, or allowed"
)
CHECKS = (NAMES, FILES)
HERE = ("data.", "model.", "defense.")  # what a run names and a client builds
SIMULATED = "simulated"  # in the node's config: one process plays every party


class Refused(FedsimError):
    """The operator of a client refuses a request; the server gets the reason."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A node's config, read and checked.

    Attributes:
        client: Number of the client that this node is.
        root: Folder of its data; None where the run's config may say.
        own_data: Whether every training row in it is this client's.
        defense: TOML text with the defenses that it insists on; empty without.
        allowed: Names of parts outside fedsim that a run may use.
        seed: Of the defenses' coins; None for new ones from the system.
        simulated: Whether no server is there to keep anything from.
        consents: Whether it carries canaries in a run that is audited.
        device: Where its arithmetic runs; in a simulation the run's config says it.
    """

    client: str
    root: str | None = None
    own_data: bool = False
    defense: str = ""
    allowed: tuple[str, ...] = ()
    seed: int | None = None
    simulated: bool = False
    consents: bool = False
    device: str = "cpu"

    def coins(self, run_seed: int, *names: object) -> Generator:
        """Return the randomness that must not be known to the server, such as a defense's noise.

        In a simulation it comes from the run's seed, so that a run can be repeated.
        """
        seed = run_seed if self.simulated and self.seed is None else self.seed
        return secret_generator() if seed is None else generator(seed, *names)

    @property
    def repeats(self) -> bool:
        """Whether the same names give the same coins again."""
        return self.simulated or self.seed is not None


def operator(node: Mapping[str, object], *, simulated: bool = False) -> Operator:
    """Return what a node's config says.

    Raises:
        Refused: A value is of the wrong kind, the file of defenses cannot be read, or the machine
            lacks the device.
    """
    seed, own_data = node.get("seed"), node.get("own-data", False)
    consents = node.get("consent-audit", False)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise Refused(f"node seed: must be a whole number, got {seed!r}")
    if not isinstance(own_data, bool):
        raise Refused(f"node own-data: must be true or false, got {own_data!r}")
    if not isinstance(consents, bool):
        raise Refused(f"node consent-audit: must be true or false, got {consents!r}")
    if "partition-id" not in node:
        raise Refused("node partition-id: must be set, got none")
    root = str(node.get("data-root", "")) or None
    if own_data and root is None:
        raise Refused("node own-data: must be false without data-root, got true")
    simulated = simulated or bool(node.get(SIMULATED))
    return Operator(
        client=str(node["partition-id"]),
        root=root,
        own_data=own_data,
        defense=_defense_text(str(node.get("defense", ""))),
        allowed=tuple(name.strip() for name in str(node.get("allow", "")).split(",")),
        seed=seed,
        simulated=simulated,
        consents=consents or simulated,
        device=_device(str(node.get("device", "cpu"))),
    )


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

    def rows(self, client: str) -> Tensor:
        """Return the rows of the training set that are a client's."""
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


def agreed(listed: tuple[Part, ...], insisted: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the defenses that a client applies.

    A run that lists none gets the operator's; one that lists others than the operator's is
    refused, whether they look stronger or weaker: which of two is stronger is for the operator
    to say.

    Raises:
        Refused: Both list defenses, and they differ.
    """
    if insisted and listed and listed != insisted:
        raise Refused(
            f"defense: must be this node's {described(insisted)}, got {described(listed)}"
        )
    return insisted or listed


def parse_defense(text: str) -> tuple[Part, ...]:
    """Return the defenses in TOML text, none in an empty one.

    Raises:
        Refused: It is not TOML, or lists no defense, or something else.
    """
    if not text:
        return ()
    try:
        tables = tomllib.loads(text)
        if set(tables) != {"defense"}:
            got = ", ".join(tables) or "nothing"
            raise Refused(f"node defense: must hold only [[defense]] tables, got {got}")
        parts = configs.parse(tables).defense
        defenses.build(parts)
    except (tomllib.TOMLDecodeError, ConfigError) as error:
        raise Refused(f"node defense: must be valid ({error})") from None
    if not parts:
        raise Refused("node defense: must list a defense, got none")
    return parts


def described(parts: Iterable[Part]) -> str:
    """Return defenses in their order with their options, on one line."""
    texts = []
    for part in parts:
        options = ", ".join(f"{key}={value}" for key, value in part.options.items())
        texts.append(f"{part.name}({options})")
    return " → ".join(texts) or "none"


def _device(setting: str) -> str:
    """Return the device that a node's config names.

    Raises:
        Refused: There is none of that name, or the machine lacks it.
    """
    try:
        return resolved(setting, "node device")
    except ConfigError as error:
        raise Refused(str(error)) from None


def _defense_text(setting: str) -> str:
    """Return TOML text itself, or that in the file it names."""
    if not setting.strip() or "=" in setting or "[" in setting:
        return setting.strip()
    try:
        text = user_path("node defense", setting).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise Refused(f"node defense: must be a readable TOML file, got '{setting}'") from None
    if not text:
        raise Refused(f"node defense: must list a defense, got an empty file '{setting}'")
    return text


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
