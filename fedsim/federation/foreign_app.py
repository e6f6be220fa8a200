"""Recordings of somebody else's Flower app: what its user tells, and the plan of their attacks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import defenses
from adversary.grading import selection
from fedsim import config as configs
from fedsim import data, models
from fedsim.config import Config, Part
from fedsim.config import Data as DataSection
from fedsim.core.catalog import find_entry
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import write_whole
from fedsim.core.params import mismatch
from fedsim.core.types import Auxiliary
from fedsim.data import Dataset, Federated
from fedsim.run.prepare import Plan, with_versions
from fedsim.run.run_folder import RunFolder
from strategies import STRATEGIES
from strategies.tape import recorded_clients, recorded_rounds, upload_kind, views

SIZES = (8, 16, 28, 32, 64, 96, 128, 224, 256)  # of square images, to try a model on
LOCAL = ("lr", "batch_size", "epochs", "momentum", "label_smoothing")
PATHS = ("auxiliary_root", "truth")


@dataclass(frozen=True)
class App:
    """What a recording does not say of the app that made it; None where it is not told (again).

    Attributes:
        model: `package.module:Class` or function of the architecture.
        num_classes: Number of labels.
        lr: Of the clients' SGD; this, and how they batch, decides what uploaded weights mean.
        batch_size: Of the clients.
        epochs: Of the clients, per round.
        momentum: Of the clients' SGD.
        label_smoothing: Of the clients' loss.
        input_shape: Shape of one example; found where a single usual size of image fits.
        auxiliary: The adversary's own examples: a data set's name or `package.module:function`.
        auxiliary_root: Its folder.
        auxiliary_limit: How many of its training rows.
        truth: Folder of the clients' ground truth.
    """

    model: str | None = None
    num_classes: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    momentum: float | None = None
    label_smoothing: float | None = None
    input_shape: tuple[int, ...] | None = None
    auxiliary: str | None = None
    auxiliary_root: str | None = None
    auxiliary_limit: int | None = None
    truth: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What is given, by its key in the config."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        for name in PATHS:
            if name in given:
                given[name] = str(Path(given[name]).expanduser().absolute())
        return {_key(name): value for name, value in given.items()}


def is_foreign(path: Path) -> bool:
    """Return whether a folder holds rounds that no run of fedsim's own has left.

    Raises:
        BadRecording: Its config is damaged.
    """
    if not (path / "config.toml").exists():
        return bool(recorded_rounds(path))
    return RunFolder(path).config.foreign is not None


def tell(path: Path, app: App, attacks: Sequence[Part]) -> tuple[RunFolder, Plan]:
    """Check what is told of a recording against it, write it down beside it, and plan the attacks.

    What was told before need not be told again. Nothing is written where something is wrong.

    Args:
        path: The folder of the tape.
        app: What is told.
        attacks: Names and options.

    Raises:
        ConfigError: Something is not told, wrong, or does not fit the recording.
        BadRecording: A file of the recording is damaged.
    """
    config = _config(path, app)
    plan = prepare(config.model_copy(update={"attack": tuple(attacks)}))
    latest = recorded_rounds(path)[-1]
    view = next(views(path, latest, plan.local))
    if reason := mismatch(view.latest.sent, plan.model.state_dict()):
        raise ConfigError(
            f"--model: must be the model of {path}, got '{config.model.name}' that is not: {reason}"
        )
    if config.foreign and config.foreign.truth and not Path(config.foreign.truth).is_dir():
        raise ConfigError(f"--truth: must be a folder, got {config.foreign.truth}")
    names = {part.name for part in attacks}
    parts = (*(part for part in config.attack if part.name not in names), *attacks)
    text = configs.dump(config.model_copy(update={"attack": parts}))
    write_whole(path / "config.toml", lambda file: file.write_text(text))
    return RunFolder(path), plan


def prepare(config: Config) -> Plan:
    """Build the model, the adversary's examples and the attacks on another app's recording.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
    """
    assert config.foreign is not None
    shape, classes = config.foreign.input_shape, config.foreign.num_classes
    model = models.build(config.model, shape, classes, seed=config.seed)
    dataset = _auxiliary(config) or _nothing(shape, classes)
    has_examples = len(dataset.labels) > 0
    auxiliary = Auxiliary(
        model=model,
        num_classes=classes,
        inputs=dataset.inputs if has_examples else None,
        labels=dataset.labels if has_examples else None,
        input_shape=shape,
    )
    attacks = selection.build(config.attack, auxiliary)
    federated = Federated(dataset, (), torch.arange(len(dataset.labels)))
    strategy, defense = STRATEGIES["fedavg"](), defenses.build(())  # of no use here
    return Plan(
        config=config,
        federated=federated,
        model=model,
        strategy=strategy,
        defense=defense,
        auxiliary=auxiliary,
        attacks=attacks,
    )


def _config(path: Path, app: App) -> Config:
    """Return what is known of a recording, now and before.

    Raises:
        ConfigError: Something lacks or is wrong.
    """
    rounds = recorded_rounds(path)
    clients = recorded_clients(path, rounds[-1]) if rounds else []
    if not clients:
        raise BadRecording(f"{path}: must hold recorded rounds, got none")
    before = path / "config.toml"
    upload = upload_kind(path, rounds[-1], clients[0])
    settings = {"local.upload": upload, **app.settings}
    earlier = configs.read(before) if before.exists() else None
    needed = ["model", "num_classes", *(("lr", "batch_size") if upload == "weights" else ())]
    for name in needed if earlier is None else ():
        if _key(name) not in settings:
            flag = f"--{'local-' * (name in LOCAL)}{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag}: must be given for a recording that fedsim did not run, got none"
            )
    if earlier is None:
        settings["attack"] = []
    settings.setdefault("local.epochs", earlier.local.epochs if earlier else 1)
    if "foreign.input_shape" not in settings and earlier is None:
        settings["foreign.input_shape"] = [1]  # until it is found
        settings["foreign.input_shape"] = _shape(_read(before, settings))
    return with_versions(_read(before, settings))


def _key(name: str) -> str:
    """Return where the config keeps what is told of an app."""
    if name == "model":
        return "model.name"
    return f"{'local' if name in LOCAL else 'foreign'}.{name}"


def _read(before: Path, settings: dict[str, Any]) -> Config:
    return configs.read(before if before.exists() else None, (), list(settings.items()))


def _shape(config: Config) -> tuple[int, ...]:
    """Return the only shape of examples that the model can take: the auxiliary ones', or usual.

    Raises:
        ConfigError: There is none, or there are several.
    """
    assert config.foreign is not None
    if (dataset := _loaded(config)) is not None:
        return dataset.input_shape
    name, classes = config.model.name, config.foreign.num_classes
    find_entry("model.name", name, models.MODELS, "models")  # or say why not
    fitting: list[tuple[int, ...]] = []
    reasons = []
    for shape in ((c, size, size) for c in (1, 3) for size in SIZES):
        try:
            models.build(config.model, shape, classes, seed=config.seed)
            fitting.append(shape)
        except ConfigError as error:
            reasons.append(str(error))
    if len(fitting) == 1:
        return fitting[0]
    # Of a shape that the model did take, where there is one.
    reason = next((text for text in reasons if "got shape (2, " in text), reasons[-1])
    shapes = ", ".join("x".join(map(str, shape)) for shape in fitting[:3]) or f"none ({reason})"
    raise ConfigError(
        "--input-shape: must be given, because not exactly one usual size of image fits, "
        f"got {shapes}"
    )


def _loaded(config: Config) -> Dataset | None:
    """Return the adversary's data set, where one is told."""
    foreign = config.foreign
    if foreign is None or foreign.auxiliary is None:
        return None
    section = DataSection(
        name=foreign.auxiliary, root=foreign.auxiliary_root, limit=foreign.auxiliary_limit
    )
    return data.load(section, config.seed)


def _auxiliary(config: Config) -> Dataset | None:
    """Return the adversary's own examples, or None.

    Raises:
        ConfigError: They are not of the app's shape or classes.
    """
    dataset, foreign = _loaded(config), config.foreign
    if dataset is None or foreign is None:
        return None
    if dataset.input_shape != foreign.input_shape or dataset.num_classes != foreign.num_classes:
        raise ConfigError(
            f"--auxiliary: must have {foreign.num_classes} classes of shape "
            f"{foreign.input_shape}, got {dataset.num_classes} of {dataset.input_shape}"
        )
    return dataset


def _nothing(shape: tuple[int, ...], classes: int) -> Dataset:
    inputs, labels = torch.zeros(0, *shape), torch.zeros(0, dtype=torch.int64)
    return Dataset(
        inputs=inputs, labels=labels, test_inputs=inputs, test_labels=labels, num_classes=classes
    )
