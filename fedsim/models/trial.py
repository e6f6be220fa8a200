"""What a model does while it trains, found by training a copy of it on random inputs.

Nothing here knows a layer by its name: state that moves, examples that mix and a memory of earlier
batches are recognised by what changes.
"""

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedsim.core.form import IGNORED, PAD, Form
from fedsim.core.params import alike
from fedsim.core.rng import generator, global_state, global_stream
from fedsim.core.sgd import gradients
from fedsim.core.types import Params

EXAMPLES = 2
EARLIER = 6  # batches before the one that must not depend on them


def batch(form: Form, count: int = EXAMPLES, number: int = 0) -> tuple[Tensor, Tensor]:
    """Return random examples with labels: the same for everybody who asks.

    Examples are numbers in [0, 1], or texts of different lengths with their targets.

    Args:
        form: Of the data.
        count: How many examples.
        number: Another number, other examples.
    """
    stream = generator(0, "trial", number)
    if form.vocabulary is not None:
        return _texts(form, form.vocabulary, count, stream)
    inputs = torch.rand(count, *form.shape, generator=stream)
    if not form.dtype.is_floating_point:
        inputs = inputs.round()
    return inputs.to(form.dtype), torch.randint(form.num_classes, (count,), generator=stream)


def _texts(
    form: Form, vocabulary: int, count: int, stream: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return random texts and their targets; pads are on the right."""
    (length,) = form.shape
    drawn = torch.randint(PAD + 1, vocabulary, (count, length + 1), generator=stream)
    sizes = torch.randint(length // 2, length, (count, 1), generator=stream) + 1
    used = torch.arange(length) < sizes
    inputs = drawn[:, :-1].where(used, PAD)
    if form.per_token:
        return inputs, drawn[:, 1:].where(used, IGNORED)
    return inputs, torch.randint(form.num_classes, (count,), generator=stream)


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def trainable(model: nn.Module) -> tuple[str, ...]:
    """Return the names that training moves; the rest of the state are buffers."""
    return tuple(parameters_of(model))


def step(model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], bool]:
    """Return the gradient of a batch, and whether the loss depends on any parameter.

    The weights stay; whatever else the model keeps may change.
    """
    trained = parameters_of(model)
    with global_stream(0, "trial"):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        slopes = gradients(loss, trained)
    return dict(zip(trained, slopes, strict=True)), loss.requires_grad


def moved_state(model: nn.Module, form: Form) -> tuple[str, ...]:
    """Return the names in the model's state that a look at data changes, weights included.

    They are uploaded with what they hold of the data, and no noise on the update covers them.

    Args:
        model: Left as it is.
        form: Of the data.
    """
    working = copy.deepcopy(model).train()
    before = {name: value.clone() for name, value in working.state_dict().items()}
    for number in range(2):
        step(working, *batch(form, number=number))
    return changed(before, working.state_dict(), before)


def changed(before: Params, after: Params, names: Iterable[str]) -> tuple[str, ...]:
    """Return those names whose values are not the same to the bit."""
    return tuple(name for name in names if not alike(before[name], after[name]))


def remembers(model: nn.Module, form: Form) -> bool:
    """Return whether earlier batches change the gradient of a later one at the same weights."""
    fresh, used = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    for number in range(EARLIER):
        step(used, *batch(form, EXAMPLES + number % 2, number))
    with torch.no_grad():
        for name, value in used.state_dict().items():
            value.copy_(fresh.state_dict()[name])
    last = batch(form, number=EARLIER)
    expected, got = step(fresh, *last)[0], step(used, *last)[0]
    return bool(changed(expected, got, expected))


def draws(model: nn.Module, form: Form) -> bool:
    """Return whether a step of training draws random numbers, such as dropout's."""
    working, (inputs, _) = copy.deepcopy(model).train(), batch(form)
    with global_stream(0, "trial"), torch.no_grad():
        before = global_state()
        working(inputs)
        return global_state() != before


def mixing_layer(model: nn.Module, form: Form) -> str | None:
    """Return the first layer whose output for one example depends on the others, or None."""
    inputs, _ = batch(form)
    other = inputs.clone()
    other[1:] = batch(form, number=1)[0][1:]
    left, right = (_calls(copy.deepcopy(model).train(), each) for each in (inputs, other))
    if not left or len(left) != len(right):
        return type(model).__name__ if left or right else None
    for one, two in zip(left, right, strict=True):
        if _near(one.entered, two.entered) and not _near(one.left, two.left):
            return one.layer
    return None


class _Call(NamedTuple):
    """What went into a layer for the first example, and what came out."""

    layer: str
    entered: Tensor
    left: Tensor


def _near(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.allclose(left, right, rtol=1e-5, equal_nan=True)


def _calls(model: nn.Module, inputs: Tensor) -> list[_Call]:
    """Return the calls of layers in the order in which they finish; the last is the model's."""
    calls: list[_Call] = []

    def note(layer: str, entered: object, left: object) -> None:
        pair = [each for each in (entered, left) if isinstance(each, Tensor) and each.dim()]
        if len(pair) == 2 and all(len(each) == len(inputs) for each in pair):
            calls.append(_Call(layer, *(each[0].detach().clone() for each in pair)))

    for name, module in model.named_modules():
        title = f"{name} = {type(module).__name__}" if name else type(module).__name__
        module.register_forward_hook(
            lambda _, given, output, title=title: note(title, given[0] if given else None, output)
        )
    with torch.no_grad(), global_stream(0, "trial"):
        model(inputs)
    return calls
