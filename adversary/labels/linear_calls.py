"""Which linear layer's output a model gives as its logits, from watching one run of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class LastLayer:
    """The linear map whose output a model gave as its logits.

    Attributes:
        weight: As the map was given it.
        bias: None for a map without.
        tied: Whether the weight was used elsewhere in the run, too.
        binary: Whether its one output is the second of two logits, of which the first is 0.
    """

    weight: Tensor
    bias: Tensor | None
    tied: bool
    binary: bool


def run(
    model: nn.Module, inputs: Tensor
) -> tuple[Float[Tensor, "n *features"], Float[Tensor, "n *classes"], LastLayer | None]:
    """Run a model; return the last layer's inputs, the logits, and the layer.

    Those of a language model have an axis for positions, too.

    Without such a layer the logits stand for its inputs, too. Log-softmax after it is allowed.
    """
    with torch.no_grad(), LinearCalls() as linear:
        result = model(inputs)
        for (features, weight, bias), output in reversed(linear.calls):
            binary = _is_second(output, result)
            if not binary and not _is_logits(output, result):
                continue
            layer = LastLayer(weight, bias, linear.uses[id(weight)] > 1, binary)
            return features, result if binary else output, layer
    return result, result, None


def _is_logits(output: Tensor, result: Tensor) -> bool:
    if output.shape != result.shape:
        return False
    same = torch.equal(output, result)
    return same or torch.allclose(output.log_softmax(dim=-1), result, atol=1e-5)


def _is_second(output: Tensor, result: Tensor) -> bool:
    """Return whether a linear map's one output z was made the logits (0, z)."""
    one = output.dim() == 2 and result.shape == (len(output), 2) and output.shape[1] == 1
    return one and not bool(result[:, 0].any()) and torch.equal(output[:, 0], result[:, 1])


class LinearCalls(TorchFunctionMode):
    """Keeps (input, weight, bias) and the output of every linear map computed inside.

    Also how often each parameter was used in any computation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[Any, ...], Tensor]] = []
        self.uses: Counter[int] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            values = (*args, *(kwargs or {}).values())
            self.uses.update(id(value) for value in values if isinstance(value, nn.Parameter))
        if func is functional.linear:
            inputs = dict(zip(("input", "weight", "bias"), args, strict=False)) | (kwargs or {})
            call = tuple(inputs.get(name) for name in ("input", "weight", "bias"))
            self.calls.append((call, output))
        return output
