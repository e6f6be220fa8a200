"""A look at a Flower app before it runs: strategy, clients, model, and which attacks will apply."""

import importlib
import os.path
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch

from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.labels.head import HeadAlone, NeedsModel
from fedsim.core.accepts import Rule
from fedsim.core.errors import ConfigError
from fedsim.core.packages import shadowing
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.federation.foreign.built import Built, build
from fedsim.federation.foreign.code import Call, Code, read_code
from fedsim.federation.foreign.optimizers import Optimizer, optimizers_of

MESSAGE, LEGACY = "flwr.serverapp.strategy.", "flwr.server.strategy."
STRATEGIES = (MESSAGE, LEGACY)
START = "start"
SERVERS = ("flwr.server.",)
SECURE = ("flwr.server.workflow.SecAgg", "flwr.server.workflow.secure_aggregation.")
MODULE = (
    "torch.nn.Module", "torch.nn.modules.", "pytorch_lightning.LightningModule",
    "lightning.LightningModule", "lightning.pytorch.LightningModule",
)  # fmt: skip
TREES = {"xgboost": "XGBoost", "catboost": "CatBoost", "lightgbm": "LightGBM"}
NETWORKS = ("torch", "jax", "tensorflow", "keras", "mlx")
FRAMEWORKS = (
    *NETWORKS, "sklearn", *TREES, "transformers", "peft", "lightning", "pytorch_lightning",
    "fastai",
)  # fmt: skip

PROJECT = Rule("Flower app", "APP_DIR", "must be a folder with a pyproject.toml of a Flower app")
COMPONENTS = Rule(
    "Flower app",
    "tool.flwr.app.components",
    'must name serverapp and clientapp as "package.module:app", files of the app',
)
CHECKS = (PROJECT, COMPONENTS)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of an app.

    Attributes:
        server: The ServerApp's module and object; `client` the ClientApp's.
        code: What its files say.
        strategies: The calls that make a strategy.
        starts: The calls that hand a strategy over.
        workflow: The call that runs Flower's secure aggregation; None where none was seen.
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
    starts: tuple[Call, ...]
    workflow: Call | None
    optimizers: tuple[Optimizer, ...]
    chosen: str | None
    model: Built | None
    ran: tuple[str, ...]
    reason: str
    shadows: tuple[str, ...]

    @property
    def legacy(self) -> bool:
        """Whether the server is of Flower's legacy API."""
        made = any(self.code.descends(call.name, (LEGACY,)) for call in self.strategies)
        return made or (not self.strategies and self.start is not None and self.start.last != START)

    @property
    def start(self) -> Call | None:
        """The first call that hands a strategy over; None where none was seen."""
        return next(iter(self.starts), None)

    @property
    def recordable(self) -> bool:
        """Whether a strategy was seen, for a recorder to stand around."""
        return bool(self.strategies or self.starts)

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
    def trees(self) -> str:
        """The library of trees that it trains; empty where it trains none."""
        used = [title for name, title in TREES.items() if name in self.code.imports]
        return used[0] if used and not self.code.imports & {*NETWORKS} else ""

    @property
    def recorded(self) -> bool:
        """Whether a recorder is in place already."""
        recorders = (
            "strategies.Recording",
            "strategies.recording.",
            "strategies.legacy.",
            "strategies.secagg_plus.",
        )
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
    built, ran, reason = None, (), "" if chosen else _reason(code)
    if chosen and run:
        ran = (f"import {chosen.partition(':')[0]}", f"{chosen.partition(':')[2]}()")
        built, reason = build(folder, chosen)
    return Look(
        server=server,
        client=client,
        code=code,
        strategies=strategies,
        starts=tuple(it for it in code.calls if _starts(code, it, strategies)),
        workflow=_workflow_of(code),
        optimizers=optimizers_of(code, server.partition(":")[0]),
        chosen=chosen,
        model=built,
        ran=ran,
        reason=reason,
        shadows=tuple(shadowing(folder)),
    )


NOW, SHAPED, AUXILIARY, HEAD, TWIN, NEVER = (
    "by name alone",
    "with --input-shape, if the model is a classifier",
    "with --auxiliary",
    "with --head-weight and --head-bias",
    "with --model, a twin in torch",
    "not on such a tape",
)


def applicable(app: Look) -> dict[str, list[str]]:
    """Return the attacks by what the user must give them on the app's tape."""
    groups: dict[str, list[str]] = {
        name: [] for name in (NOW, SHAPED, AUXILIARY, HEAD, TWIN, NEVER)
    }
    for name, attack in ATTACKS.items():
        groups[_group(app, attack)].append(name)
    return {group: names for group, names in groups.items() if names}


def _group(app: Look, attack: Attack) -> str:
    labels = app.model is None or app.model.labels
    if not app.recordable or app.trees or (attack.family == "label" and not labels):
        return NEVER
    if not set(attack.needs) <= {"inputs", "labels"}:  # candidates and marks are a run's own
        return NEVER
    if app.model is None:
        by_head = attack.family == "label" and not attack.needs and not _runs_model(attack)
        return HEAD if by_head else TWIN
    return AUXILIARY if attack.needs else NOW if app.model.input_shape else SHAPED


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
        if not isinstance(name, str) or ":" not in name or not any(map(os.path.isfile, files)):
            raise ConfigError(COMPONENTS.message(repr(name)))
    return str(named[0]), str(named[1])


def _model_of(code: Code, server: str) -> str | None:
    """Return the module class that the server builds, or the only one there is."""
    classes = _modules(code)
    path = server.replace(".", "/")
    built = [call.name for call in code.calls if call.name in classes and path in call.path]
    names = list(dict.fromkeys(built)) or classes
    if len(names) != 1:
        return None
    module, _, name = names[0].rpartition(".")
    return f"{module}:{name}"


def _modules(code: Code) -> list[str]:
    return [name for name in code.classes if code.descends(name, MODULE)]


def _reason(code: Code) -> str:
    """Return why no class was chosen."""
    if not (names := _modules(code)):
        return "no class of torch.nn.Module was found"
    return f"of {', '.join(names[:4])} none stands out; name one by --model"


def _is_strategy(code: Code, name: str) -> bool:
    """Return whether a class is one of Flower's strategies, or descends from one."""
    return any(map(_is_flowers, code.ancestors(name)))


def _is_flowers(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if not f"{module}.".startswith(STRATEGIES):
        return False
    flower = importlib.import_module(STRATEGIES[f"{module}.".startswith(LEGACY)].rstrip("."))
    part = getattr(flower, attribute, None)
    return isinstance(part, type) and issubclass(part, flower.Strategy)


def _starts(code: Code, call: Call, strategies: tuple[Call, ...]) -> bool:
    """Return whether a call hands over a strategy: its `start`, or a legacy server's."""
    if call.last == START:
        variables = {it.target for it in strategies if it.target}
        return call.owner in variables or bool({"grid", "initial_arrays"} & set(call.values))
    server = code.descends(call.name, SERVERS) and not _is_strategy(code, call.name)
    return server and "strategy" in call.values


def _workflow_of(code: Code) -> Call | None:
    """Return the call of a workflow, where one of Flower's secure aggregations is made."""
    if not any(code.descends(call.name, SECURE) for call in code.calls):
        return None
    made = {it.target for it in code.called("flwr.server.workflow.DefaultWorkflow") if it.target}
    return next((call for call in code.calls if call.last in made and call.arguments), None)
