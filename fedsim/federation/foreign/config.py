"""The config of another app's recording: from what its user says, now and before, and its tape."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fedsim import config as configs
from fedsim import models
from fedsim.config import Config
from fedsim.core.catalog import find_entry
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import TensorFile
from fedsim.core.form import Form
from fedsim.core.local_training import Upload
from fedsim.core.params import mismatch
from fedsim.core.types import Params
from fedsim.federation.foreign.app import App, flag_of
from fedsim.federation.foreign.parts import loaded, model_of
from fedsim.federation.foreign.twin import (
    IN_ORDER,
    Shapes,
    by_name,
    check,
    head_sources,
    propose,
    read_arrays,
    shapes_of,
    without_counters,
)
from fedsim.run import trust
from fedsim.run.prepare import with_versions
from fedsim.run.run_folder import RunFolder
from strategies.tape import recorded_clients, recorded_rounds, upload_kind

VALUES = {"model": "MODULE:NAME", "num_classes": "C", "lr": "LR", "batch_size": "N"}
SIZES = (8, 16, 28, 32, 64, 96, 128, 224, 256)  # of square images, to try a model on


def config_of(path: Path, app: App, allow: Iterable[str] = (), given: Iterable[str] = ()) -> Config:
    """Return what is said of a recording, now and before, as far as its tape bears it out.

    Args:
        path: The folder of the tape.
        app: What is said now.
        allow: Modules and paths that an earlier config may use.
        given: What the user names now.

    Raises:
        ConfigError: Something lacks, is wrong, or does not fit the tape.
        BadRecording: A file of the recording is damaged, or its config names what is not allowed.
    """
    tape = recorded_arrays(path)
    config, before = _config(path, app, shapes_of(tape)), path / "config.toml"
    if before.exists():
        trust.check(before, config, allow, given=given)
    return _with_arrays(config, app, tape, path)


def last_round(path: Path) -> int:
    """Return the last round with uploads; the last of all where none has any.

    An app that was killed leaves a round without uploads behind.
    """
    rounds = recorded_rounds(path)
    return next((each for each in reversed(rounds) if recorded_clients(path, each)), rounds[-1])


def recorded_arrays(path: Path) -> Params:
    """Return what the server sent in the last round with uploads, by the names on tape.

    Raises:
        BadRecording: Nothing is recorded, a file is damaged, or there are no real numbers in it.
    """
    rounds = recorded_rounds(path)
    if not rounds:
        raise BadRecording(f"{path}: must hold recorded rounds, got none")
    last = last_round(path)
    sent = TensorFile(path / "rounds" / f"{last:04d}" / "sent.safetensors")
    kinds = {value.dtype for value in sent.values()}
    if not any(kind.is_floating_point for kind in kinds):
        got = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)) or "nothing"
        raise BadRecording(
            f"{path}: must hold real numbers, got {got}; a model of trees travels as bytes, and no "
            "attack reads trees yet"
        )
    if not recorded_clients(path, last):
        raise BadRecording(f"{path}: must hold recorded uploads, got none")
    return sent


def _config(path: Path, app: App, tape: Shapes) -> Config:
    """Return what is said of a recording, now and before, without the model's arrays on tape.

    Raises:
        ConfigError: Something lacks or is wrong.
    """
    before = path / "config.toml"
    settings = {"local.upload": upload_of(path, last_round(path)), **app.settings}
    earlier = RunFolder(path).config if before.exists() else None
    if app.head_weight is not None:
        settings |= _head(app, tape)
    elif app.model is not None:
        settings |= {"foreign.head_only": False, "foreign.arrays": {}}
    if absent := lacking(path, app):
        raise ConfigError(asked(absent))
    if earlier is None:
        settings["attack"] = []
    settings.setdefault("local.epochs", earlier.local.epochs if earlier else 1)
    if "foreign.input_shape" not in settings and earlier is None:
        if app.vocabulary is not None:
            raise ConfigError("--input-shape: must be given with --vocabulary, got none")
        settings["foreign.input_shape"] = [1]  # until it is found
        settings["foreign.input_shape"] = _shape(_read(before, settings))
    return with_versions(_read(before, settings))


def lacking(path: Path, app: App) -> list[str]:
    """Return the options, with placeholders, that a recording of another app cannot do without.

    What was said of it before need not be said again.
    """
    if (path / "config.toml").exists():
        return []
    needed = [] if app.head_weight is not None else ["model", "num_classes"]
    needed += ["lr", "batch_size"] * (upload_of(path, last_round(path)) == "weights")
    return [f"{flag_of(name)} {VALUES[name]}" for name in needed if getattr(app, name) is None]


def asked(options: Sequence[str]) -> str:
    """Return the sentence that asks for all that a recording lacks."""
    other = "; --head-weight NAME --head-bias NAME may stand in place of --model"
    is_without_model = any(option.startswith("--model ") for option in options)
    return (
        f"{' '.join(options)}: must be given for a recording that fedsim did not run, got none"
        f"{other * is_without_model}"
    )


def upload_of(path: Path, round_: int) -> Upload:
    """Return what clients uploaded in a round."""
    return upload_kind(path, round_, recorded_clients(path, round_)[0])


def _head(app: App, tape: Shapes) -> dict[str, Any]:
    """Return the settings of a recording of which only the head is given.

    Raises:
        ConfigError: The head is none, or something is given that goes with a model.
    """
    assert app.head_weight is not None
    for name in ("model", "arrays", "input_shape", "auxiliary"):
        if getattr(app, name) is not None:
            raise ConfigError(
                f"{flag_of(name)}: must be left out with --head-weight, got {getattr(app, name)}"
            )
    sources = head_sources(tape, app.head_weight, app.head_bias, app.num_classes)
    weight = sources["weight"]
    classes, features = tape[weight.name][:: -1 if weight.axes else 1]
    return {
        "foreign.head_only": True,
        "foreign.num_classes": classes,
        "foreign.input_shape": [features],
        "foreign.arrays": {name: it.model_dump() for name, it in sources.items()},
    }


def _with_arrays(config: Config, app: App, tape: Params, path: Path) -> Config:
    """Return the config with the array on tape of each of the model's, where names differ.

    Raises:
        ConfigError: The model is not of this tape, or shapes do not say which array is which.
    """
    foreign, model = config.foreign, model_of(config)
    assert foreign is not None
    if foreign.head_only:
        return config
    recorded = shapes_of(tape)
    mine = shapes_of(without_counters(model, len(recorded)).state_dict())
    if app.arrays is not None and app.arrays != IN_ORDER:
        sources = read_arrays(Path(app.arrays))
    elif foreign.arrays and app.arrays is None:
        sources = dict(foreign.arrays)
    elif mine == recorded:
        return config
    elif (named := by_name(model, mine, recorded)) is not None:
        sources = named
    elif len(mine) != len(recorded):
        reason = mismatch(tape, model.state_dict())
        raise ConfigError(
            f"--model: must be the model of {path}, got '{config.model.name}' that is not: {reason}"
        )
    else:
        sources = propose(mine, recorded, in_order=app.arrays == IN_ORDER)
    check(mine, recorded, sources)
    return config.model_copy(update={"foreign": foreign.model_copy(update={"arrays": sources})})


def _read(before: Path, settings: dict[str, Any]) -> Config:
    return configs.read(before if before.exists() else None, (), list(settings.items()))


def _shape(config: Config) -> tuple[int, ...]:
    """Return the only shape of examples that the model can take: the auxiliary ones', or usual.

    Raises:
        ConfigError: There is none, or there are several.
    """
    assert config.foreign is not None
    if (dataset := loaded(config)) is not None:
        return dataset.input_shape
    name, classes = config.model.name, config.foreign.num_classes
    find_entry("model.name", name, models.MODELS, "models")  # or say why not
    fitting: list[tuple[int, ...]] = []
    reasons = []
    for shape in ((c, size, size) for c in (1, 3) for size in SIZES):
        try:
            models.build(config.model, Form(shape, classes), seed=config.seed)
            fitting.append(shape)
        except ConfigError as error:
            reasons.append(str(error))
    if len(fitting) == 1:
        return fitting[0]
    # Of a shape that the model did take, where there is one.
    reason = next((text for text in reasons if "with shape (2, " in text), reasons[-1])
    shapes = ", ".join("x".join(map(str, shape)) for shape in fitting[:3]) or f"none ({reason})"
    raise ConfigError(
        "--input-shape: must be given, because not exactly one usual size of image fits, "
        f"got {shapes}"
    )
