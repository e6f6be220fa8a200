"""The gradient of every example of a batch by itself."""

from collections import deque
from collections.abc import Mapping, ValuesView

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedsim.core.attention import plain_attention
from fedsim.core.types import Params


def flat_rows(gradients: Tensor) -> Float[Tensor, "batch n"]:
    """Return each example's gradient of one parameter as a row; the parameter may be one number."""
    return gradients.flatten(1) if gradients.dim() > 1 else gradients.unsqueeze(1)


def example_gradients(
    model: nn.Module,
    parameters: Params,
    inputs: Num[Tensor, "batch *shape"],
    labels: Int[Tensor, "batch *target"],
    *,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Return each example's gradient of its cross-entropy, per parameter, shape (batch, *shape).

    That of a text is the mean over its targets.

    Args:
        model: Runs on one example at a time; must not mix examples. Dropout draws for each.
        parameters: Those to take gradients of.
        inputs: At least one example.
        labels: Theirs, or their targets at each position.
        label_smoothing: Of the loss.

    Raises:
        ValueError: The model keeps something of the examples.
    """
    values = {name: value.detach() for name, value in parameters.items()}
    others = {n: v.detach() for n, v in model.state_dict().items() if n not in values}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(model, (weights, others), (x.unsqueeze(0),))
        return functional.cross_entropy(logits, y.unsqueeze(0), label_smoothing=label_smoothing)

    together = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    with plain_attention():
        each = together(values, inputs, labels)
    if name := _kept(model):
        raise ValueError(f"model: must not remember earlier examples, got '{name}'")
    return each


def _kept(model: nn.Module) -> str | None:
    """Return the first attribute in which a model keeps something of the examples, or None.

    Inside `vmap` nothing of an example becomes a number. What is kept is a wrapper without memory
    of its own, which a later `vmap` takes for its own examples, in silence.
    """
    for module in model.modules():
        classes = (kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch"))
        for names in (vars(module), *map(vars, classes)):
            for name, value in names.items():
                if name[:1] != "_" and _holds_wrapper(value):
                    return name
    return None


def _holds_wrapper(value: object, depth: int = 3) -> bool:
    if isinstance(value, Tensor):
        return value.layout == torch.strided and _has_no_memory(value)
    items = value.values() if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple | set | deque | ValuesView) or not depth:
        return False
    return any(_holds_wrapper(item, depth - 1) for item in items)


def _has_no_memory(value: Tensor) -> bool:
    try:
        value.data_ptr()
    except RuntimeError:
        return True
    return False
