"""The layers of a transformer that take a row for each token, and what they are given.

They are found by running a model: which of its linear layers take tokens, on which axis examples
lie, and which tokens a gradient reaches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from adversary.workspace import randomise
from fedsim.core.attention import plain_attention
from fedsim.core.boundary import PASSING, explained
from fedsim.core.doubled import doubled
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reader:
    """One linear layer, or several that take the same tokens.

    Attributes:
        module: The name of the (first) layer.
        weights: Names of the weights.
        axis: Of its input on which examples lie.
        tokens: Those whose gradient reaches the weights.
    """

    module: str
    weights: tuple[str, ...]
    axis: int
    tokens: Bool[Tensor, " tokens"]

    def rank(self, count: int) -> int:
        """Return the dimensions of the span of so many examples, at most."""
        return count * int(self.tokens.sum())

    def rows(self, inputs: Tensor) -> Float[Tensor, "n tokens width"]:
        """Return the tokens of each example that count."""
        return inputs.movedim(self.axis, 0).flatten(1, -2)[:, self.tokens]


def readers_of(model: nn.Module, shape: Shape) -> tuple[Reader, ...]:
    """Return the layers that take a row per token, in the order of their calls.

    Args:
        model: Left as it is.
        shape: Of one input.

    Raises:
        NotApplicable: A gradient of random examples cannot be computed.
    """
    copied = doubled(model).eval()
    randomise(copied, generator(0, "token spans", "weights"))
    copied.requires_grad_(requires_grad=True)
    try:
        two, three = (_calls(copied, shape, count) for count in (2, 3))
    except PASSING:
        raise
    except Exception as error:
        rule = "spans: a gradient of random examples must be computable"
        raise NotApplicable(f"{rule}, got {explained(error)}") from None
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    readers: dict[int, Reader] = {}
    for name, call in two.items():
        other = three.get(name)
        if not {call.weight} <= trained or call.times != 1 or other is None:
            continue
        axis = _batch_axis(call.input, other.input)
        if axis is None or call.input.ndim < 3 or call.tokens is None:
            continue
        same = readers.get(id(call.input))
        weights = (call.weight,) if same is None else (*same.weights, call.weight)
        reached = call.tokens.movedim(axis, 0).flatten(1).any(dim=0)
        tokens = reached if same is None else same.tokens | reached
        if bool(tokens.any()):
            module = name if same is None else same.module
            readers[id(call.input)] = Reader(
                module=module, weights=weights, axis=axis, tokens=tokens
            )
    return tuple(readers.values())


@dataclass(eq=False)
class _Call:
    """A layer's call.

    Attributes:
        weight: The name of its weight.
        input: What it was given.
        out: What it returned.
        times: How often it was called.
        tokens: Where a gradient reaches it, of the shape of its input without the last axis.
    """

    weight: str
    input: Tensor
    out: Tensor
    times: int = 1
    tokens: Tensor | None = None


def _calls(model: nn.Module, shape: Shape, count: int) -> dict[str, _Call]:
    calls: dict[str, _Call] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            if name in calls:
                calls[name].times += 1
                return
            if isinstance(module, nn.MultiheadAttention):
                if len(given) > 2 and given[0] is given[1] is given[2]:
                    calls[name] = _Call(f"{name}.in_proj_weight", given[0], out[0])
            elif given and isinstance(given[0], Tensor):
                calls[name] = _Call(f"{name}.weight", given[0], out)

        return hook

    kinds = (nn.Linear, nn.MultiheadAttention)
    hooks = [
        m.register_forward_hook(note(n)) for n, m in model.named_modules() if isinstance(m, kinds)
    ]
    probe = torch.rand(count, *shape, generator=generator(0, "spans"), dtype=torch.float64)
    try:
        with torch.enable_grad(), plain_attention():
            logits = model(probe)
            loss = functional.cross_entropy(logits, torch.zeros(count, dtype=torch.int64))
            slopes = torch.autograd.grad(
                loss, [call.out for call in calls.values()], allow_unused=True
            )
    finally:
        for hook in hooks:
            hook.remove()
    for call, slope in zip(calls.values(), slopes, strict=True):
        if slope is None:
            continue
        if call.weight.endswith("in_proj_weight"):  # each token is a key and a value of some query
            call.tokens = slope.any().expand(call.input.shape[:-1])
        else:
            call.tokens = slope.any(dim=-1)
    return calls


def _batch_axis(two: Tensor, three: Tensor) -> int | None:
    """Return the axis on which examples lie; None where it is not one of their number."""
    if two.ndim != three.ndim:
        return None
    axes = [
        i
        for i, sizes in enumerate(zip(two.shape, three.shape, strict=True))
        if sizes[0] != sizes[1]
    ]
    plain = len(axes) == 1 and axes[0] < two.ndim - 1
    return axes[0] if plain and (two.shape[axes[0]], three.shape[axes[0]]) == (2, 3) else None


class _ReachedError(Exception):
    """All layers that count have been called."""


def rows_of(
    model: nn.Module, readers: Sequence[Reader], images: Float[Tensor, "n *shape"]
) -> dict[str, Float[Tensor, "n tokens width"]]:
    """Return the inputs of layers by their names; what comes after the last is not run."""
    rows: dict[str, Tensor] = {}

    def noted(reader: Reader) -> Callable[..., None]:
        def note(_module: nn.Module, given: tuple[Any, ...]) -> None:
            rows[reader.module] = reader.rows(given[0])
            if len(rows) == len(readers):
                raise _ReachedError

        return note

    hooks = [model.get_submodule(it.module).register_forward_pre_hook(noted(it)) for it in readers]
    try:
        with plain_attention():
            model(images)
    except _ReachedError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return rows
