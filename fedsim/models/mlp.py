"""A two-layer perceptron."""

from math import prod

from torch import nn

from fedsim.core.catalog import Entry
from fedsim.models.layers import ACTIVATIONS, Activation, Shape, sequence


def mlp(
    input_shape: Shape,
    num_classes: int,
    *,
    hidden: int = 128,
    activation: Activation = "relu",
    bottleneck: int = 0,
) -> nn.Module:
    """Two-layer perceptron."""
    return sequence(
        nn.Flatten(),
        nn.Linear(prod(input_shape), hidden),
        ACTIVATIONS[activation](),
        head=nn.Linear(hidden, num_classes),
        bottleneck=bottleneck,
    )


MODEL = Entry("mlp", mlp)
