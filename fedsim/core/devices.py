"""Where arithmetic runs: on the CPU, or on an accelerator that torch offers.

`on(device)` is the one rule, and code inside it names no device:

- a tensor that is made without a device lies there: `torch.device` as a context does that;
- random numbers come from the CPU's generators and are moved, dropout's included, so that they are
  the same on every device;
- `.numpy()` and `np.asarray` read through the CPU's memory.

What comes in is moved at the door (`moved`), what leaves is moved back. On the CPU nothing is
different. Torch hides `torch.from_numpy` from such contexts: code inside takes `torch.as_tensor`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy, deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedsim.core.errors import ConfigError
from fedsim.core.repeatable import prepare_repeatable, repeatable

CPU = torch.device("cpu")
NAMES = {name: torch.device(name) for name in ("cuda", "mps", "cpu")}  # `auto` takes the first
DRAWS = frozenset(
    {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
    | {"rand_like", "randn_like", "randint_like", "binomial", "gumbel_softmax", "rrelu"}
    | {"bernoulli_", "uniform_", "normal_", "exponential_", "random_", "log_normal_", "cauchy_"}
    | {"geometric_", "alpha_dropout", "feature_alpha_dropout", "rrelu_", "alpha_dropout_"}
)
DROPOUTS = frozenset(
    {"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"}
    | {"dropout_", "feature_dropout_"}
)
READS = frozenset({"numpy", "__array__"})
ATTENTION = (
    functional.scaled_dot_product_attention,
    functional.multi_head_attention_forward,
)  # dropout is inside

Value = TypeVar("Value")
_HERE = ContextVar("where arithmetic runs", default=CPU)


def offered() -> tuple[str, ...]:
    """Return the accelerators of this machine that torch can use."""
    has = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    return tuple(name for name, is_available in has.items() if is_available())


def named(name: str) -> torch.device:
    """Return torch's device for a resolved setting."""
    return NAMES[name]


def resolved(setting: str, key: str = "engine.device") -> str:
    """Return the device that a setting stands for on this machine.

    Args:
        setting: `cpu`, `cuda`, `mps`, or `auto` for the best that is at hand.
        key: Of the config.

    Raises:
        ConfigError: The machine has no such device.
    """
    if setting == "cpu":
        return setting
    names = offered()
    if setting not in ("auto", *NAMES):
        raise ConfigError(f"{key}: must be {', '.join(NAMES)} or auto, got '{setting}'")
    if setting == "auto":
        setting = names[0] if names else "cpu"
    if setting not in (*names, "cpu"):
        raise ConfigError(
            f"{key}: must be a device that torch can use on this machine, "
            f"{' or '.join((*names, 'cpu'))}, got '{setting}'"
        )
    prepare_repeatable(setting)
    return setting


def device_of(value: Tensor | nn.Module) -> torch.device:
    """Return the device of a tensor, or of a model's parameters."""
    if isinstance(value, Tensor):
        return value.device
    return next((parameter.device for parameter in value.parameters()), CPU)


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes new tensors may take on an accelerator; None where it does not say."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Let arithmetic inside the block run on a device: the rule of this module.

    Inside such a block another one changes nothing.
    """
    if device.type == "cpu" or here().type != "cpu":
        yield
        return
    with repeatable(device), device, _Moves(device):
        before = _HERE.set(device)
        try:
            yield
        finally:
            _HERE.reset(before)


def here() -> torch.device:
    """Return where arithmetic runs: inside `on(device)` that device, elsewhere the CPU."""
    return _HERE.get()


def run_on(
    device: torch.device, compute: Callable[..., Value], *values: Any, **options: Any
) -> Value:
    """Return `compute(*values, **options)`, computed on a device.

    Values are moved there, and what it returns is moved back. Of a model a copy is moved: what
    `compute` does to its weights is lost.
    """
    if device.type == "cpu" or here().type != "cpu":
        return compute(*values, **options)
    with on(device):
        values, options = moved(values, device), moved(options, device)
        return moved(compute(*values, **options), CPU)


def with_doubles(device: torch.device) -> torch.device:
    """Return the device, or the CPU where it has no float64, as Apple's has none."""
    return CPU if device.type == "mps" else device


def moved(value: Value, device: torch.device) -> Value:
    """Return a value with its tensors on a device: itself where they are there already.

    Args:
        value: A tensor, a model (a copy is moved), or containers and dataclasses of them. Other
            objects stay as they are.
        device: Where to.
    """
    return _moved(value, device, {})


def _moved(value: Any, device: torch.device, done: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return value if value.device.type == device.type else value.to(device)
    if isinstance(value, str | bytes | int | float | None):
        return value
    if id(value) not in done:
        done[id(value)] = _container(value, device, done)
    return done[id(value)]


def _container(value: Any, device: torch.device, done: dict[int, Any]) -> Any:
    move: Callable[[Any], Any] = lambda part: _moved(part, device, done)
    if isinstance(value, nn.Module):
        return value if device_of(value).type == device.type else deepcopy(value).to(device)
    if isinstance(value, Mapping):
        given = dict(value.items())
        changed = {key: move(part) for key, part in given.items()}
        return value if all(changed[key] is given[key] for key in given) else changed
    if type(value) in (list, tuple):
        changed = [move(part) for part in value]
        same = all(new is old for new, old in zip(changed, value, strict=True))
        return value if same else type(value)(changed)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {it.name: getattr(value, it.name) for it in fields(value)}
        changed = {name: move(part) for name, part in parts.items()}
        if all(changed[name] is parts[name] for name in parts):
            return value
        twin = copy(value)
        vars(twin).clear()  # what it computed of the tensors that are left behind
        vars(twin).update(changed)
        return twin
    return value


class _Moves(TorchFunctionMode):
    """Draws random numbers on the CPU, and reads through its memory."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, options = getattr(func, "__name__", ""), dict(kwargs or {})
        drops = func in ATTENTION and options.get("dropout_p") and options.get("training", True)
        if name in DRAWS or drops or getattr(func, "__module__", "") == nn.init.__name__:
            return self._drawn(func, args, options)
        if name in DROPOUTS:
            return self._dropped(func, args, options)
        if name in READS:
            return func(args[0].cpu(), *args[1:], **options)
        return func(*args, **options)

    def _drawn(self, func: Any, args: Any, options: dict[str, Any]) -> Any:
        """Return what a function that draws gives on the CPU, moved."""
        given: Generator | None = options.get("generator")
        if given is not None and given.device.type != "cpu":
            return func(*args, **options)
        device = torch.device(options.pop("device", None) or self.device)
        target = next(iter((*args, *options.values())), None)
        if not any(isinstance(it, Tensor) for it in (*args, *options.values())):
            options["device"] = CPU
        result = func(*_moved(tuple(args), CPU, {}), **_moved(options, CPU, {}))
        if func.__name__.endswith("_") and isinstance(target, Tensor):
            with torch.no_grad():
                return target.copy_(result)
        return _moved(result, device, {})

    def _dropped(self, func: Any, args: Any, options: dict[str, Any]) -> Any:
        """Return what dropout leaves: its mask comes from the CPU."""
        given = {**dict(zip(("input", "p", "training", "inplace"), args, strict=False)), **options}
        x = given.pop("input")
        if not given.get("training", given.get("train", True)):
            return func(*args, **options)
        inplace = given.pop("inplace", False) or func.__name__.endswith("_")
        if "train" not in given and func.__module__ != functional.__name__:  # torch.dropout
            given["train"] = given.pop("training")
        mask = func(torch.ones_like(x, device=CPU, requires_grad=False), **given).to(x.device)
        return x.mul_(mask) if inplace else x * mask
