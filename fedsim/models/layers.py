"""What the architectures share: activations, image inputs, and a linear last layer named `head`."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from fedsim.models.bottleneck import Bottleneck

Shape = tuple[int, ...]
Activation = Literal["relu", "sigmoid", "tanh", "silu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


def sequence(*layers: nn.Module, head: nn.Linear, bottleneck: int = 0) -> nn.Sequential:
    """Return the layers with `head` at the end, and a bottleneck of a size before it.

    Raises:
        ValueError: The size is negative.
    """
    model = nn.Sequential(*layers)
    if bottleneck < 0:
        raise ValueError(f"bottleneck: must be at least 0, got {bottleneck}")
    if bottleneck:
        model.add_module("bottleneck", Bottleneck(head.in_features, bottleneck))
        head = nn.Linear(bottleneck, head.out_features)
    model.add_module("head", head)
    return model


def image_shape(input_shape: Shape, name: str, *, at_least: int) -> tuple[int, int, int]:
    """Return the channels, height and width of the inputs of a model.

    Raises:
        ValueError: The inputs are no images, or too small.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < at_least:
        raise ValueError(
            f"{name}: inputs must be (channels, height, width) images "
            f"of at least {at_least}×{at_least}, got {input_shape}"
        )
    return input_shape
