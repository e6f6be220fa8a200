"""Checks of a model where it comes in: it is a module that can be trained, copied and repeated."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fedsim.core.accepts import Rule
from fedsim.core.boundary import PASSING, boundary, raised
from fedsim.core.errors import ConfigError, plain
from fedsim.core.form import Form
from fedsim.core.params import alike, mismatch
from fedsim.core.rng import global_stream
from fedsim.models.travels import base_of
from fedsim.models.trial import EXAMPLES, batch, parameters_of, step

BUILT = Rule("model", "model.name", "must build a torch module")
EAGER = Rule("model", "model.name", "must build a plain module, not a scripted one")
STATE = Rule("model", "model.name", "must hold dense real tensors on the CPU in its state")
NAMES = Rule("model", "model.name", "must have names in its state that a file can hold")
KEPT = Rule("model", "model.name", "must keep the names and shapes of its state while it trains")
STILL = Rule("model", "model.name", "must leave frozen parameters as they are while it trains")
LOADED = Rule("model", "model.name", "must hold in its state what is loaded into it")
COPIED = Rule("model", "model.name", "must allow copy.deepcopy, with a copy that shares nothing")
SETTINGS = Rule("model", "model.name", "must leave torch's settings as they are")
INPUT = Rule(
    "model", "model.name", "must take inputs of the data's shape, one tensor with a row per example"
)
LOGITS = Rule(
    "model",
    "model.name",
    "must give a logit per class for each example, or of two classes the second's alone, as a "
    "tensor, or as `logits` in what it returns",
)
TRAINED = Rule("model", "model.name", "must have a trainable parameter that the loss depends on")
STEP = Rule("model", "model.name", "must give a gradient of the cross-entropy of its logits")
REPEATED = Rule(
    "model", "model.name", "must be decided by the seed: equal weights, outputs and gradients twice"
)
SIZES = Rule(
    "model", "local.batch_size", "must leave no batch of a size that the model cannot take"
)

CHECKS = (
    *(BUILT, EAGER, STATE, NAMES, KEPT, STILL, LOADED, COPIED, SETTINGS),
    *(INPUT, LOGITS, TRAINED, STEP, REPEATED, SIZES),
)


SIGMOIDS = (torch.sigmoid, torch.special.expit, Tensor.sigmoid, Tensor.sigmoid_)


def check_module(name: str, built: object) -> nn.Module:
    """Return what a model's function built, if it is a module.

    Raises:
        ConfigError: It is none, or one that takes no hooks.
    """
    if not isinstance(built, nn.Module):
        raise _refusal(BUILT, name, type(built).__name__)
    if isinstance(built, torch.jit.ScriptModule):
        raise _refusal(EAGER, name, type(built).__name__)
    return built


def check_logits(name: str, model: nn.Module, form: Form) -> None:
    """Let the model see two examples, and refuse what is no row of logits for each.

    They are zeros, or texts where the model takes token ids.

    Raises:
        ConfigError: It cannot take them, or gives something else.
    """
    training = model.training
    zeros = torch.zeros((EXAMPLES, *form.shape), dtype=form.dtype)
    inputs = zeros if form.kind == "values" else batch(form)[0]
    try:
        with (
            torch.no_grad(),
            boundary(INPUT.field, _taken(name, form)),
            _Sigmoids() as sigmoids,
        ):
            logits = model.eval()(inputs)
    finally:
        model.train(training)
    if not isinstance(logits, Tensor):
        raise _refusal(LOGITS, name, type(logits).__name__)
    if tuple(logits.shape) != form.logits(EXAMPLES) or not logits.is_floating_point():
        got, where = f"shape {tuple(logits.shape)} of {logits.dtype}", ""
        if form.per_token:
            where = f" at each of {form.shape[0]} tokens, which come second"
        raise _refusal(
            LOGITS, name, f"{got} for {EXAMPLES} examples and {form.num_classes} classes{where}"
        )
    if form.binary and sigmoids.gave(logits[:, 1]):
        raise _refusal(LOGITS, name, "a sigmoid's output; return what goes into it")


class _Sigmoids(TorchFunctionMode):
    """Keeps the output of every sigmoid computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in SIGMOIDS:
            self.outputs.append(output)
        return output

    def gave(self, values: Tensor) -> bool:
        """Return whether one of them was these values, in whatever shape."""
        flat = values.flatten()
        return any(torch.equal(output.flatten(), flat) for output in self.outputs)


def _taken(name: str, form: Form) -> str:
    """Return what a model must take."""
    if form.kind == "values":
        return f"{INPUT.rule}, '{name}' those of {(EXAMPLES, *form.shape)}"
    return f"must take token ids of texts, as gpt and bert do, '{name}' {form.shape[0]} in each"


def check_state(name: str, model: nn.Module) -> None:
    """Refuse a state that cannot be sent.

    Raises:
        ConfigError: A parameter is not in it, or something in it is no plain tensor.
    """
    with boundary(STATE.field, STATE.rule):
        state = model.state_dict()
    if odd := [n for n in state if n == "__metadata__" or "\0" in n or plain(n) != n]:
        raise _refusal(NAMES, name, repr(odd[0]))
    if lost := [n for n, _ in model.named_parameters() if n not in state]:
        raise _refusal(STATE, name, f"none for {lost[0]}")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise _refusal(STATE, name, f"{key} of {type(value).__name__}")
        dense = value.layout == torch.strided and value.device.type == "cpu"
        if not dense or value.is_complex() or value.is_quantized or not _sendable(value):
            raise _refusal(STATE, name, f"{key} of {value.dtype} on {value.device}")


def check_copies(name: str, model: nn.Module) -> None:
    """Refuse a model whose deep copy is not a second one: clients and attacks work on copies.

    Raises:
        ConfigError: It cannot be copied, or the copy shares memory with it.
    """
    with boundary(COPIED.field, COPIED.rule):
        copied = copy.deepcopy(model)
        places = {value.data_ptr() for value in model.state_dict().values() if value.numel()}
        shared = [key for key, value in copied.state_dict().items() if value.data_ptr() in places]
    if copied is model or shared:
        raise _refusal(COPIED, name, f"{shared[0] if shared else 'itself'} shared with the copy")


def check_trains(name: str, model: nn.Module, form: Form) -> None:
    """Refuse a model that has no gradient, or another state once it trains.

    Raises:
        ConfigError: In one sentence.
    """
    copied = copy.deepcopy(model).train()
    trained = parameters_of(copied)
    if not trained:
        raise _refusal(TRAINED, name, "none that is trainable")
    with boundary(STEP.field, STEP.rule):
        _, used = step(copied, *batch(form))
    if not used:
        raise _refusal(TRAINED, name, f"a loss that depends on none of {len(trained)}")
    if odd := mismatch(copied.state_dict(), model.state_dict()):
        raise _refusal(KEPT, name, odd)
    if odd := _difference(base_of(copied), base_of(model)):
        raise _refusal(STILL, name, f"other values of {odd}")


def check_loads(name: str, model: nn.Module) -> None:
    """Refuse a state that is not what is loaded: computed, or two parameters in one memory.

    Args:
        name: As in the config.
        model: Its state is overwritten.

    Raises:
        ConfigError: It is one.
    """
    state = model.state_dict()
    loaded = {key: _other(value, place) for place, (key, value) in enumerate(state.items())}
    with boundary(LOADED.field, LOADED.rule), torch.no_grad():
        for key, value in state.items():
            value.copy_(loaded[key])
    if odd := _difference(loaded, model.state_dict()):
        raise _refusal(LOADED, name, f"another {odd} than was loaded")


def check_repeats(name: str, model: nn.Module, build: Callable[[], nn.Module], form: Form) -> None:
    """Refuse a model that the seed does not decide.

    Args:
        name: As in the config.
        model: Built once.
        build: Builds it again from the same seed.
        form: Of the data.

    Raises:
        ConfigError: Built twice, it is not the same, or it does not train in the same way.
    """
    again, first = build(), copy.deepcopy(model)
    if odd := _difference(first.state_dict(), again.state_dict()):
        raise _refusal(REPEATED, name, f"another {odd} in the second")
    inputs, labels = batch(form)
    results = [step(each.train(), inputs, labels)[0] for each in (first, again)]
    if odd := _difference(*results) or _difference(first.state_dict(), again.state_dict()):
        raise _refusal(REPEATED, name, f"another gradient or state of {odd} in the second")


def check_sizes(model: nn.Module, form: Form, train: set[int], test: set[int]) -> None:
    """Refuse sizes of batches that the model cannot take, such as one example in a BatchNorm.

    Args:
        model: Left as it is.
        form: Of the data.
        train: Sizes of training batches.
        test: Sizes of evaluated batches.

    Raises:
        ConfigError: In one sentence.
    """
    for training, sizes in ((True, train), (False, test)):
        for size in sorted({min(sizes), max(sizes)} if sizes else ()):
            inputs, _ = batch(form, size)
            copied = copy.deepcopy(model).train(training)
            try:
                with global_stream(0, "trial"), torch.no_grad():
                    shape = tuple(copied(inputs).shape)
            except PASSING:
                raise
            except BaseException as error:  # foreign code may want to end the process
                reason = raised(error)
            else:
                if shape == form.logits(size):
                    continue
                reason = f"logits of shape {shape}"
            when = "while training" if training else "in evaluation"
            raise ConfigError(SIZES.message(f"a batch of {size} {when} ({reason})"))


def _other(value: Tensor, place: int) -> Tensor:
    """Return other values of the same type, which differ from place to place."""
    count = torch.arange(value.numel()).reshape(value.shape) + place
    return (count % 2 == 0) if value.dtype == torch.bool else (count % 100 + 1).to(value.dtype)


def _sendable(value: Tensor) -> bool:
    """Return whether NumPy, in which everything travels, has all values of the tensor."""
    try:
        plain = value.detach()
        (plain.float() if plain.is_floating_point() else plain).numpy()
    except (TypeError, RuntimeError, ValueError):
        return False
    return True


def _difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> str | None:
    """Return the first name under which two states differ."""
    if left.keys() != right.keys():
        return min(left.keys() ^ right.keys())
    return next((name for name in left if not alike(left[name], right[name])), None)


def _refusal(rule: Rule, name: str, got: str) -> ConfigError:
    return ConfigError(rule.message(f"'{name}' with {got}"))
