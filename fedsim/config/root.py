"""The config of a whole run, and the rules between its sections."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import model_validator

from fedsim.config.adversary import Grading, Knowledge, Record
from fedsim.config.audit import Audit
from fedsim.config.check import Check
from fedsim.config.engine import Engine
from fedsim.config.federation import Federation
from fedsim.config.fields import Natural, Part, Parts, Section, or_name
from fedsim.config.foreign import Foreign
from fedsim.config.game import Game
from fedsim.config.track import Track
from fedsim.config.training import Data, Local, Model
from fedsim.config.values import check_values
from fedsim.core.local_training import LocalTraining, Upload


class Config(Section):
    """A whole run; every field has a default, so `Config()` is the run of no arguments."""

    seed: Natural = 0
    """Everything random follows from this number."""
    federation: Federation = Federation()
    """Who trains together, how often, and how the server aggregates."""
    data: Annotated[Data, or_name(Data)] = Data()
    """Which examples, and how they are spread over the clients; a name, or a table."""
    model: Annotated[Model, or_name(Model)] = Model()
    """The architecture; a name, or a table."""
    local: Local = Local()
    """What each client does in a round."""
    defense: Parts = ()
    """Defenses of every client, in order: names or tables; see `fedsim list defenses`."""
    attack: Parts = (
        Part(name="llg"),
        Part(name="eb-gls-rounds"),
        Part(name="fedmia-rounds"),
        Part.model_validate({"name": "analytic", "every": 3}),
    )
    """Attacks on every round: names or tables; see `fedsim list attacks`. If omitted: attacks of
    the model's kind, which the default names for models of numbers."""
    auxiliary: Knowledge = Knowledge()
    """What the adversary knows before round 1."""
    record: Record = Record()
    """Which uploads are kept for attacks."""
    grading: Grading = Grading()
    """How answers of attacks are compared with the truth."""
    engine: Engine = Engine()
    """Where clients and attacks run."""
    game: Game = Game()
    """Inference games, for `fedsim game`."""
    audit: Audit = Audit()
    """Canaries, in a run and for `fedsim audit`."""
    check: Check | None = None
    """Rules that `fedsim check` holds a run against."""
    foreign: Foreign | None = None
    """Another app's recording: what its tape does not say."""
    track: Track | None = None
    """Trackers: other programs that show the run's metrics."""
    versions: dict[str, str] = {}  # noqa: RUF012
    """Versions of the packages that made a run; every run writes them."""

    @model_validator(mode="before")
    @classmethod
    def _values(cls, tables: object) -> object:
        if isinstance(tables, Mapping):
            check_values(tables)
        return tables

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
        if self._sgd and self.local.optimizer != "sgd":
            raise ValueError(
                f"local.optimizer: must be 'sgd' with fedsgd, got '{self.local.optimizer}'"
            )
        if self.federation.secure_aggregation and self.record.clients is not None:
            raise ValueError(
                "record.clients: must be left out with secure aggregation, which shows no client, "
                f"got {list(self.record.clients)}"
            )
        clients = self.federation.clients
        if unknown := [it for it in self.record.clients or () if not _is_client(it, clients)]:
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
        settings = self.local.model_dump(exclude={"upload"})
        return LocalTraining(upload=upload, proximal_mu=proximal_mu, **settings)


def _is_client(name: str, count: int) -> bool:
    """Return whether a text is a client's number as it is written."""
    return name.isdecimal() and str(int(name[:20])) == name and int(name) < count
