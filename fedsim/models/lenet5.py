"""LeNet-5."""

from torch import nn

from fedsim.core.catalog import Entry
from fedsim.models.layers import ACTIVATIONS, Activation, Shape, image_shape, sequence


def lenet5(
    input_shape: Shape,
    num_classes: int,
    *,
    activation: Activation = "relu",
    bottleneck: int = 0,
) -> nn.Module:
    """LeNet-5 with max-pooling, 61,706 parameters on MNIST.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
    recognition", 1998; as it is used today, with ReLU.
    """
    channels, height, width = image_shape(input_shape, "lenet5", at_least=12)
    act = ACTIVATIONS[activation]
    flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    return sequence(
        *(nn.Conv2d(channels, 6, 5, padding=2), act(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), act(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(flat, 120), act(), nn.Linear(120, 84), act()),
        head=nn.Linear(84, num_classes),
        bottleneck=bottleneck,
    )


MODEL = Entry("lenet5", lenet5, paper="LeCun, Bottou, Bengio, Haffner, 1998")
