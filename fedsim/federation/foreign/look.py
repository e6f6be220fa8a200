"""A look at a Flower app before it runs: strategy, clients, model, and which attacks will apply."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.labels.head import Head, HeadAlone, NeedsModel, find_head
from adversary.workspace import workspace
from fedsim.core.accepts import Rule
from fedsim.core.errors import ConfigError, FedsimError, one_line
from fedsim.core.packages import shadowing
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.federation.foreign.code import Call, Code, read_code
from fedsim.federation.foreign.config import SIZES

MESSAGE, LEGACY = "flwr.serverapp.strategy.", "flwr.server.strategy."
STRATEGIES = (MESSAGE, LEGACY)
MODULE = ("torch.nn.Module", "torch.nn.modules.")
OPTIMIZERS = (
    "torch.optim.", "optax.", "keras.optimizers.", "tensorflow.keras.optimizers.",
    "sklearn.linear_model.", "transformers.AdamW",
)  # fmt: skip
RATE = re.compile(r"lr|rate|^[0-9.e-]+$")  # in an argument of optax's optimizers
FRAMEWORKS = ("torch", "jax", "tensorflow", "keras", "sklearn", "xgboost", "transformers")

PROJECT = Rule("Flower app", "APP_DIR", "must be a folder with a pyproject.toml of a Flower app")
COMPONENTS = Rule(
    "Flower app",
    "tool.flwr.app.components",
    'must name serverapp and clientapp as "package.module:app", files of the app',
)
CHECKS = (PROJECT, COMPONENTS)


@dataclass(frozen=True)
class Built:
    """A model that was built: its name, and what running it on zeros showed.

    Attributes:
        name: As `package.module:Class`.
        parameters: How many numbers.
        input_shape: The only usual size of image that fits; None where none does, or several.
        num_classes: Of its logits; None without a shape.
        head: Its last linear layer; None where there is none, or nothing could be run.
    """

    name: str
    parameters: int
    input_shape: tuple[int, ...] | None
    num_classes: int | None
    head: Head | None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A call that makes or names an optimizer.

    Attributes:
        name: In small letters: "sgd", "adamw"; of scikit-learn the solver.
        lr: Its learning rate; None where the source has no constant.
        momentum: The same.
        place: File and line.
    """

    name: str
    lr: float | None
    momentum: float | None
    place: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of an app.

    Attributes:
        server: The ServerApp's module and object; `client` the ClientApp's.
        code: What its files say.
        strategies: The calls that make a strategy.
        start: The call that hands the strategy over; None where none was seen.
        optimizers: The clients' optimizers.
        chosen: `package.module:Class` of the model; None where none was found.
        model: The built model; None where there is none, or nothing was to be run.
        ran: What of the app was run.
        reason: Why there is no model; empty where there is one.
        shadows: Sentences on files that hide fedsim's packages.
    """

    server: str
    client: str
    code: Code
    strategies: tuple[Call, ...]
    start: Call | None
    optimizers: tuple[Optimizer, ...]
    chosen: str | None
    model: Built | None
    ran: tuple[str, ...]
    reason: str
    shadows: tuple[str, ...]

    @property
    def legacy(self) -> bool:
        """Whether the server is of Flower's legacy API."""
        return any(self.code.descends(call.name, (LEGACY,)) for call in self.strategies)

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The frameworks that it imports."""
        return tuple(name for name in FRAMEWORKS if name in self.code.imports)

    @property
    def replies(self) -> tuple[str, ...]:
        """What the ClientApp puts into its replies, as source text."""
        path = self.client.partition(":")[0].replace(".", "/")
        calls = self.code.called("flwr.app.RecordDict", "flwr.common.RecordDict")
        return tuple(" ".join(c.arguments)[:100] for c in calls if path in c.path and c.arguments)

    @property
    def trees(self) -> bool:
        """Whether it trains trees."""
        return "xgboost" in self.code.imports

    @property
    def recorded(self) -> bool:
        """Whether a recorder is in place already."""
        recorders = ("strategies.Recording", "strategies.recording.", "strategies.legacy.")
        return bool(self.code.called(*recorders))


def look(folder: Path, model: str | None = None, *, run: bool = True) -> Look:
    """Read an app's files, and build its model where one is found.

    Args:
        folder: Of the app.
        model: `package.module:Class` of the model; found where there is one class that the server
            builds.
        run: Whether to import the model's module and build the model.

    Raises:
        ConfigError: The folder holds no Flower app.
    """
    server, client = _components(folder)
    code = read_code(folder, [server.partition(":")[0], client.partition(":")[0]])
    strategies = tuple(call for call in code.calls if _is_strategy(code, call.name))
    chosen = model or _model_of(code, server.partition(":")[0])
    built, ran, reason = None, (), "" if chosen else "no class of torch.nn.Module was found"
    if chosen and not run:
        reason = f"{chosen} was not to be built"
    elif chosen:
        ran = (f"import {chosen.partition(':')[0]}", f"{chosen.partition(':')[2]}()")
        built, reason = _build(folder, chosen)
    return Look(
        server=server,
        client=client,
        code=code,
        strategies=strategies,
        start=_start_of(code, strategies),
        optimizers=tuple(filter(None, map(_optimizer, code.calls))) or _compiled(code),
        chosen=chosen,
        model=built,
        ran=ran,
        reason=reason,
        shadows=tuple(shadowing(folder)),
    )


NOW, AUXILIARY, HEAD, TWIN, NEVER = (
    "by name alone",
    "with --auxiliary",
    "with --head-weight and --head-bias",
    "with --model, a twin in torch",
    "not on such a tape",
)


def applicable(seen: Look) -> dict[str, list[str]]:
    """Return the attacks by what the user must give them on the app's tape."""
    groups: dict[str, list[str]] = {name: [] for name in (NOW, AUXILIARY, HEAD, TWIN, NEVER)}
    for name, attack in ATTACKS.items():
        groups[_group(seen, attack)].append(name)
    return {group: names for group, names in groups.items() if names}


def _group(seen: Look, attack: Attack) -> str:
    headless = seen.model is not None and seen.model.input_shape and seen.model.head is None
    if seen.trees or (headless and attack.family == "label"):
        return NEVER
    if not set(attack.needs) <= {"inputs", "labels"}:  # candidates and marks are a run's own
        return NEVER
    if seen.model is None:
        by_head = attack.family == "label" and not attack.needs and not _runs_model(attack)
        return HEAD if by_head else TWIN
    return AUXILIARY if attack.needs else NOW


def _runs_model(attack: Attack) -> bool:
    """Return whether an attack runs the model, by asking it with the head alone."""
    model = HeadAlone(torch.eye(3, 4), torch.zeros(3))
    sent = {name: value.detach() for name, value in model.named_parameters()}
    delta = {name: -0.1 * torch.ones_like(value) for name, value in sent.items()}
    view = View([Observation(sent, Update(1, "0", delta, 4), LocalTraining(0.1, 2))])
    try:
        attack.infer(view, Auxiliary(model, 3, input_shape=(4,)), generator(0, "look"))
    except NeedsModel:
        return True
    except Exception:  # of this update; others may have an answer
        return False
    return False


def _components(folder: Path) -> tuple[str, str]:
    """Return the app's ServerApp and ClientApp as `module:object`.

    Raises:
        ConfigError: There are none.
    """
    path = folder / "pyproject.toml"
    try:
        project = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(PROJECT.message(f"{folder} without one")) from None
    except (OSError, ValueError) as error:
        raise ConfigError(PROJECT.message(f"{path} ({error})")) from None
    components = project
    for key in ("tool", "flwr", "app", "components"):
        components = components.get(key, {}) if isinstance(components, dict) else {}
    named = [
        components.get(it) if isinstance(components, dict) else None
        for it in ("serverapp", "clientapp")
    ]
    for name in named:
        module = str(name).partition(":")[0].replace(".", "/")
        files = (folder / f"{module}.py", folder / module / "__init__.py")
        if not isinstance(name, str) or ":" not in name or not any(it.is_file() for it in files):
            raise ConfigError(COMPONENTS.message(repr(name)))
    return str(named[0]), str(named[1])


def _model_of(code: Code, server: str) -> str | None:
    """Return the module class that the server builds, or the only one there is."""
    classes = [name for name in code.classes if code.descends(name, MODULE)]
    path = server.replace(".", "/")
    built = [call.name for call in code.calls if call.name in classes and path in call.path]
    names = list(dict.fromkeys(built)) or classes
    if len(names) != 1:
        return None
    module, _, name = names[0].rpartition(".")
    return f"{module}:{name}"


def _is_strategy(code: Code, name: str) -> bool:
    """Return whether a class is one of Flower's strategies, or descends from one."""
    if name in code.classes:
        return any(_is_strategy(code, base) for base in code.classes[name].bases if base != name)
    module, _, attribute = name.rpartition(".")
    if not f"{module}.".startswith(STRATEGIES):
        return False
    known = importlib.import_module(STRATEGIES[f"{module}.".startswith(LEGACY)].rstrip("."))
    part = getattr(known, attribute, None)
    return isinstance(part, type) and issubclass(part, known.Strategy)


def _start_of(code: Code, strategies: tuple[Call, ...]) -> Call | None:
    """Return the call that hands over the strategy: its `start`, or a legacy server's."""
    variables = {call.target for call in strategies if call.target}
    for call in code.calls:
        owner = call.name.rpartition(".")[0].rpartition(".")[2]
        if call.last == "start" and owner in variables:
            return call
        if "strategy" in call.values and call.name.startswith("flwr.server."):
            return call
    return None


def _optimizer(call: Call) -> Optimizer | None:
    """Return the optimizer that a call makes; None for another call."""
    name = str(call.values.get("solver", call.last))
    if not call.name.startswith(OPTIMIZERS) or "lr_scheduler" in call.name:
        return None
    rates = [call.values.get(key) for key in ("lr", "learning_rate")]
    given = " ".join([*call.arguments[:1], *(str(rate) for rate in rates if rate is not None)])
    if call.name.startswith("optax.") and not RATE.search(given):
        return None  # a loss, a schedule
    lr, momentum = next((it for it in rates if it is not None), None), call.values.get("momentum")
    return Optimizer(
        name=name.lower(),
        lr=lr if isinstance(lr, float) else None,
        momentum=momentum if isinstance(momentum, float) else None,
        place=f"{call.path}:{call.line}",
    )


def _compiled(code: Code) -> tuple[Optimizer, ...]:
    """Return the optimizers that calls of Keras's `compile` name."""
    return tuple(
        Optimizer(
            name=str(call.values["optimizer"]).lower(),
            lr=None,
            momentum=None,
            place=f"{call.path}:{call.line}",
        )
        for call in code.calls
        if call.last == "compile" and "optimizer" in call.values
    )


def _build(folder: Path, name: str) -> tuple[Built | None, str]:
    """Import and build the model; whatever it raises becomes a reason."""
    module, _, attribute = name.partition(":")
    try:
        with _importable(folder):
            model = getattr(importlib.import_module(module), attribute)()
        if not isinstance(model, nn.Module):
            raise TypeError(f"{name} gives a {type(model).__name__}")
    except (Exception, SystemExit) as error:
        return None, f"{name} cannot be built here ({one_line(error)})"
    shape, classes = _fit(model)
    head = None if shape is None or classes is None else _head(model, shape, classes)
    return Built(name, sum(p.numel() for p in model.parameters()), shape, classes, head), ""


def _fit(model: nn.Module) -> tuple[tuple[int, ...] | None, int | None]:
    """Return the only usual shape of images that the model takes, and how many logits it gives."""
    fitting = {}
    for shape in ((c, size, size) for c in (1, 3) for size in SIZES):
        try:
            with torch.no_grad():
                logits = model.eval()(torch.zeros(2, *shape))
            if isinstance(logits, torch.Tensor) and logits.ndim == 2 and len(logits) == 2:
                fitting[shape] = logits.shape[1]
        except Exception:  # it does not take this one
            continue
    return next(iter(fitting.items())) if len(fitting) == 1 else (None, None)


def _head(model: nn.Module, shape: tuple[int, ...], classes: int) -> Head | None:
    sent = {name: value.detach() for name, value in model.state_dict().items()}
    latest = Observation(sent, Update(1, "0", sent, 1), LocalTraining(1.0, 1))
    auxiliary = Auxiliary(model, classes, input_shape=shape)
    try:
        return find_head(workspace(View([latest]), auxiliary))
    except (ValueError, FedsimError):
        return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported inside the block."""
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))
