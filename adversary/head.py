"""The linear classification head, where labels leak: found in the model, read from an update."""

from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Float
from torch import Tensor, nn

from fedsim.types import Observation


@dataclass(frozen=True)
class Head:
    """Names of the last linear layer's parameters; `bias` is None for a layer without."""

    weight: str
    bias: str | None


@lru_cache(maxsize=8)
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


def weight_gradient(observation: Observation, head: Head) -> Float[Tensor, "classes features"]:
    """Return the gradient of the head's weight, summed over the client's local steps.

    Each step's gradient is a mean over its batch. From uploaded weights the sum is −delta / lr,
    up to the float32 rounding of the weights; FedProx's pull is not removed.
    """
    return observation.update.delta[head.weight] * _scale(observation)


def bias_gradient(observation: Observation, head: Head) -> Float[Tensor, " classes"] | None:
    """Return the same for the head's bias, or None where it has none."""
    return None if head.bias is None else observation.update.delta[head.bias] * _scale(observation)


def _scale(observation: Observation) -> float:
    local = observation.local
    return 1.0 if local.upload == "gradient" else -1.0 / local.lr


def num_labels(observation: Observation) -> int:
    """Return how many labels went into the update, one per use of an example."""
    return observation.update.num_examples * observation.local.epochs
