"""The config: one TOML file, checked whole before anything starts."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ValidationError, model_validator

from fedsim.config.audit import Audit
from fedsim.config.federation import Federation
from fedsim.config.fields import (
    Count,
    Named,
    Natural,
    Part,
    Parts,
    Positive,
    Rate,
    Section,
    Share,
    named_list,
)
from fedsim.config.foreign import Foreign
from fedsim.config.game import Game
from fedsim.core.catalog import lower_first
from fedsim.core.errors import ConfigError, nearest
from fedsim.core.types import LocalTraining, Upload

LISTS = ("defense", "attack")  # keys that hold a list of parts
FOREIGN = {"seed", "model", "local", "attack", "foreign", "versions"}


class Data(Part):
    """Which examples, and how they are spread over the clients."""

    name: str = "digits"
    root: str | None = None
    partition: Literal["iid", "dirichlet", "shards", "user"] = "dirichlet"
    alpha: Positive = 0.5
    shards: Count = 2
    users: str | None = None
    limit: Count | None = None

    @model_validator(mode="after")
    def _user_ids(self) -> "Data":
        if (self.partition == "user") != (self.users is not None):
            raise ValueError(
                "users: must name a column or a file of ids exactly when partition = 'user', "
                f"got {self.users!r} with partition = '{self.partition}'"
            )
        return self


class Model(Part):
    """The architecture; its options are keys of the same table."""

    name: str = "cnn"


class Local(Section):
    """What each client does in a round; `upload` follows from the strategy unless given."""

    lr: Positive = 0.2
    batch_size: Count = 8
    epochs: Count = 2
    momentum: Rate = 0.0
    label_smoothing: Rate = 0.0
    upload: Upload | None = None


class Known(Section):
    """What the adversary knew before round 1: a share of the training examples, held out.

    One that knows the clients' defense attacks twice, with that knowledge and without. Attacks on
    membership ask about candidates: half are training rows of the clients, half are test rows.
    One of whose records more than a share `overlap` are copies of the clients' is refused.
    """

    share: Rate = 0.1
    overlap: Share = 0.01
    knows_defense: bool = True
    candidates: Natural = 400


class Record(Section):
    """Which uploads the recorder keeps: every k-th round from the first, and whose."""

    every: Count = 1
    clients: tuple[str, ...] | None = None

    def keeps(self, round_: int, client: str | None = None) -> bool:
        """Return whether a round (and in it a client) is recorded."""
        known = client is None or self.clients is None or client in self.clients
        return (round_ - 1) % self.every == 0 and known


class Engine(Section):
    """Where clients run; `threads` holds in every engine, so that all give the same bits.

    With `attackers` that many rounds are attacked in processes of their own (Ray tasks where the
    engine is Ray) while training goes on; without, after every round.
    """

    name: Literal["inline", "ray"] = "inline"
    address: str | None = None
    workers: Count | None = None
    threads: Count = 1
    attackers: Natural = 0


class Config(Section):
    """A whole run; every field has a default, so `Config()` is the run of no arguments."""

    seed: Natural = 0
    federation: Federation = Federation()
    data: Annotated[Data, Named] = Data()
    model: Annotated[Model, Named] = Model()
    local: Local = Local()
    defense: Parts = ()
    attack: Parts = (Part(name="llg"), Part(name="idlg"))
    auxiliary: Known = Known()
    record: Record = Record()
    engine: Engine = Engine()
    game: Game = Game()
    audit: Audit = Audit()
    foreign: Foreign | None = None
    versions: dict[str, str] = {}  # noqa: RUF012

    @model_validator(mode="after")
    def _gradient_upload(self) -> "Config":
        if self.local.upload and (self.local.upload == "gradient") != self._sgd:
            raise ValueError(
                "local.upload: must be 'gradient' exactly with federation.strategy = 'fedsgd', "
                f"got '{self.local.upload}' with '{self.federation.strategy}'"
            )
        if self._sgd and self.local.epochs != 1:
            raise ValueError(f"local.epochs: must be 1 with fedsgd, got {self.local.epochs}")
        if self._sgd and self.local.momentum:
            raise ValueError(f"local.momentum: must be 0 with fedsgd, got {self.local.momentum}")
        if self.federation.secure_aggregation and self.record.clients is not None:
            raise ValueError(
                "record.clients: must be left out with secure aggregation, which shows no client, "
                f"got {list(self.record.clients)}"
            )
        unknown = {*(self.record.clients or ())} - set(map(str, range(self.federation.clients)))
        if unknown:
            raise ValueError(
                f"record.clients: must be client numbers below {self.federation.clients}, "
                f"got '{min(unknown)}'"
            )
        names = [part.name for part in self.attack]
        if len(set(names)) < len(names):
            raise ValueError(f"attack: each name must stand once, got {', '.join(names)}")
        return self

    @property
    def _sgd(self) -> bool:
        if self.foreign:  # whose strategy is not known
            return self.local.upload == "gradient"
        return self.federation.strategy == "fedsgd"

    def local_training(self, proximal_mu: float = 0.0) -> LocalTraining:
        """Return what the protocol tells every party about local training."""
        upload: Upload = self.local.upload or ("gradient" if self._sgd else "weights")
        told = self.local.model_dump(exclude={"upload"})
        return LocalTraining(upload=upload, proximal_mu=proximal_mu, **told)


def parse(tables: Mapping[str, Any]) -> Config:
    """Return the config that `tables` (a parsed TOML file) describe.

    Raises:
        ConfigError: A key, type or range is wrong; one sentence with key, rule and value.
    """
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def parse_json(text: str) -> Config:
    """Return the config that `to_json` wrote.

    Raises:
        ConfigError: It is not a valid config.
    """
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def to_json(config: Config) -> str:
    """Return the config as one line, to travel in a message."""
    return config.model_dump_json(exclude_none=True)


def read(
    path: Path | None, settings: Iterable[str] = (), values: Iterable[tuple[str, Any]] = ()
) -> Config:
    """Return the config in a TOML file (None: the defaults) with settings on top.

    Args:
        path: The file.
        settings: `key=value`, where the value is TOML or a bare word.
        values: Keys and parsed values, after the settings.

    Raises:
        ConfigError: The file is missing or not TOML, or what it says is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text()) if path else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be a readable file ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: must be TOML ({lower_first(str(error))})") from None
    for setting in settings:
        _put(tables, *_parsed(setting))
    for key, value in values:
        _put(tables, key, value)
    return parse(tables)


def dump(config: Config) -> str:
    """Return the config as TOML; keys without a value are left out.

    Of a recording that fedsim did not run, only what is known of it.
    """
    known = FOREIGN if config.foreign else None
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True, include=known))


def _parsed(setting: str) -> tuple[str, Any]:
    """Return key and value of `section.key=value`; what is not TOML is taken as text."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: must be key=value, got '{setting}'")
    try:
        return key.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text.strip()


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    """Put a value into `tables`, at `section.key` or, for a listed part, `section.part.key`."""
    *sections, name = key.split(".")
    if sections and sections[0] in LISTS and len(sections) == 2:
        listed = named_list(tables.get(sections[0], []))
        if not isinstance(listed, list):
            raise ConfigError(f"--set {key}: '{sections[0]}' must be a list, got {listed!r}")
        found = [part for part in listed if part.get("name") == sections[1]]
        part = {**(found[0] if found else {"name": sections[1]}), name: value}
        others = listed if found else [*listed, part]
        tables[sections[0]] = [part if found and it is found[0] else it for it in others]
        return
    for section in sections:
        table = tables.setdefault(section, {})
        if isinstance(table, str):  # `data = "mnist"` and then `data.root = ...`
            table = tables[section] = {"name": table}
        if not isinstance(table, dict):
            raise ConfigError(f"--set {key}: '{section}' must be a table, got {table!r}")
        tables = table
    tables[name] = value


def _sentence(error: ValidationError) -> str:
    """Return the first error of a validation as `key: rule, got value`."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *sections, name = first["loc"]
        return f"{key}: must be a known key; {nearest(str(name), _keys(sections))}"
    if first["type"] == "value_error":  # one of our own sentences, already with key and value
        rule = first["msg"].removeprefix("Value error, ")
        return f"{key}.{rule}" if key else rule
    if first["type"] == "missing":
        return f"{key}: must be given"
    return f"{key}: {lower_first(first['msg'])}, got {first['input']!r}"


def _keys(sections: Iterable[Any]) -> list[str]:
    model: type[BaseModel] = Config
    for section in sections:
        known = model.model_fields.get(section)
        inner = known.annotation if known else None
        found = [part for part in (inner, *get_args(inner)) if isinstance(part, type)]
        models = [part for part in found if issubclass(part, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
