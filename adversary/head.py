"""The linear classification head, where labels leak: found in the model, read from an update."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from fedsim.types import Observation


@dataclass(frozen=True)
class Head:
    """Names of the last linear layer's parameters; `bias` is None for a layer without."""

    weight: str
    bias: str | None


def find_head(model: nn.Module, num_classes: int) -> Head:
    """Return the last linear layer with one output per class.

    Raises:
        ValueError: The model has none.
    """
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == num_classes:
            prefix = f"{name}." if name else ""
            return Head(f"{prefix}weight", f"{prefix}bias" if module.bias is not None else None)
    raise ValueError(f"model: must end in a linear layer of {num_classes} outputs, got none")


def summed_gradient(
    observation: Observation, head: Head
) -> tuple[Float[Tensor, "classes features"], Float[Tensor, " classes"] | None]:
    """Return the head's gradient (weight, bias), summed over the client's local steps.

    Each step's gradient is a mean over its batch. From uploaded weights the sum is −delta / lr,
    up to the float32 rounding of the weights; FedProx's pull is not removed.
    """
    local, delta = observation.local, observation.update.delta
    scale = 1.0 if local.upload == "gradient" else -1.0 / local.lr
    weight = delta[head.weight] * scale
    return weight, None if head.bias is None else delta[head.bias] * scale


def num_labels(observation: Observation) -> int:
    """Return how many labels went into the update, one per use of an example."""
    return observation.update.num_examples * observation.local.epochs


def num_steps(observation: Observation) -> int:
    """Return how many local steps the client took."""
    local = observation.local
    return local.epochs * math.ceil(observation.update.num_examples / local.batch_size)
