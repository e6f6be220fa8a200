"""The tables of a model of tokens: token embedding, position embedding and head, found by tracing.

No name counts: the model is run once, forwards and backwards, on random weights and random ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from adversary.labels.head import input_shape
from adversary.labels.linear_calls import LinearCalls
from adversary.workspace import Workspace, randomise, working_copy
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Params

EXACT = 1e-4  # relative difference of two sums of the same terms


@dataclass(frozen=True)
class Tables:
    """Names of parameters; None for what the model does not have.

    Attributes:
        tokens: Row v is added for each token v, shape (V, width).
        positions: Row i is added to the token at position i, shape (at least T, width).
        head: The weight whose product with the last features is the logits of tokens, shape
            (V, width); None where the model gives no logits of tokens.
        bias: The head's bias.
        tied: Whether the head's weight is the token table.
        uses: How often a forward pass multiplies by the head's weight up to the logits.
    """

    tokens: str
    positions: str | None
    head: str | None
    bias: str | None
    tied: bool
    uses: int = 0


def find_tables(work: Workspace) -> Tables:
    """Return the tables of the adversary's model.

    Raises:
        NotApplicable: It embeds no token ids.
    """
    return work.lasting(traced)


def table(params: Params, name: str | None, what: str) -> Tensor:
    """Return one table of an update or of the weights sent, as rows.

    Args:
        params: By name.
        name: The table's; None where the model has none.
        what: What it is, for the message.

    Raises:
        NotApplicable: It is not there, or not finite.
    """
    if name is None:
        raise NotApplicable(f"model: must have a {what}, got none")
    if name not in set(params):
        raise NotApplicable(f"update: must hold the {what}, got none: it was frozen")
    values = params[name]
    # A sum is finite if all terms are, unless it overflows.
    if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
        raise ValueError(f"update: the {what} must be finite, got NaN or infinity")
    return values.reshape(-1, values.shape[-1])


class Calls(LinearCalls):
    """Keeps the arguments of every embedding, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.embedding:
            given = dict(zip(("input", "weight"), args, strict=False)) | (kwargs or {})
            self.embeddings.append((given["input"], given["weight"]))
        return super().__torch_function__(func, types, args, kwargs)


class ReachedError(Exception):
    """Ends a forward pass where it has given what is asked for."""


class Taken(TorchFunctionMode):
    """Keeps what the head takes, and ends the forward pass there by `ReachedError`.

    Attributes:
        features: The head's last input.
    """

    def __init__(self, weight: Tensor, uses: int) -> None:
        super().__init__()
        self.weight, self.left = weight, uses
        self.features = torch.zeros(0)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.linear:
            given = dict(zip(("input", "weight"), args, strict=False)) | (kwargs or {})
            if given["weight"] is self.weight:
                self.features, self.left = given["input"], self.left - 1
                if not self.left:
                    raise ReachedError
        return func(*args, **(kwargs or {}))


def traced(auxiliary: Auxiliary) -> Tables:
    """Return the tables of the model, as `find_tables` keeps them.

    Raises:
        NotApplicable: The model looks its inputs up in no table.
    """
    model, ids = random_model(auxiliary), _random_ids(auxiliary)
    names = {id(value): name for name, value in model.named_parameters()}
    with global_stream(0, "tables"), torch.enable_grad(), Calls() as calls:
        logits = model(ids)
    weights = [weight for used, weight in calls.embeddings if torch.equal(used, ids)]
    tokens = next((names[id(weight)] for weight in weights if id(weight) in names), None)
    if tokens is None:
        raise NotApplicable("model: must look its inputs up in a table of tokens, got none")
    head, bias, uses = _head(calls, logits, names)
    draw = torch.randn(logits.shape, generator=generator(0, "tables", "loss"))
    (logits * draw.to(logits)).sum().backward()
    positions = None if head == tokens else _positions(model, names, tokens, ids)
    return Tables(tokens, positions, head, bias, tied=head == tokens, uses=uses)


def random_model(auxiliary: Auxiliary) -> nn.Module:
    """Return a copy with random weights in float64, every one of which gets a gradient."""
    model = working_copy(auxiliary).double().requires_grad_(requires_grad=True)
    randomise(model, generator(0, "tables", "weights"))
    return model


def _random_ids(auxiliary: Auxiliary) -> Tensor:
    """Return one text of two tokens in turn, without special ids if there are others."""
    assert auxiliary.vocabulary is not None
    size, length = len(auxiliary.vocabulary), input_shape(auxiliary)[0]
    first, second = max(size - 1, 0), max(size - 2, 0)
    return torch.tensor([[first, second] * length])[:, :length]


def _head(
    calls: Calls, logits: Tensor, names: dict[int, str]
) -> tuple[str | None, str | None, int]:
    """Return the weight and bias whose product is the logits of tokens, and how often it is used.

    The last two are those of `Tables`.
    """
    for place in reversed(range(len(calls.calls))):
        (_, weight, bias), output = calls.calls[place]
        if output.ndim == 3 and torch.equal(output.transpose(1, 2), logits):
            uses = sum(call[1] is weight for call, _ in calls.calls[: place + 1])
            return names.get(id(weight)), names.get(id(bias)), uses
    return None, None, 0


def _positions(model: nn.Module, names: dict[int, str], tokens: str, ids: Tensor) -> str | None:
    """Return the table whose rows' gradients add up to those of the token table: p_i, T_v."""
    parameters = dict(model.named_parameters())
    rows = parameters[tokens].grad
    assert rows is not None
    length = ids.shape[1]
    for name in names.values():
        gradient = parameters[name].grad
        if name == tokens or gradient is None or gradient.shape[-1] != rows.shape[1]:
            continue
        places = gradient.reshape(-1, gradient.shape[-1])
        places = places[places.any(dim=1)]
        if len(places) != length:
            continue
        sums = torch.zeros_like(rows).index_add_(0, ids[0], places)
        if (sums - rows).norm() <= EXACT * rows.norm() and bool(rows.any()):
            return name
    return None
