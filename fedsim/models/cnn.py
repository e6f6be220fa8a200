"""A small convolutional network, the model of a first run."""

from torch import nn

from fedsim.core.catalog import Entry
from fedsim.models.layers import Shape, image_shape, sequence


def cnn(
    input_shape: Shape, num_classes: int, *, hidden: int = 24, bottleneck: int = 0
) -> nn.Module:
    """Two 3×3 convolutions with pooling and a hidden layer, ReLU; 42,706 parameters on MNIST."""
    channels, height, width = image_shape(input_shape, "cnn", at_least=4)
    return sequence(
        *(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), hidden), nn.ReLU()),
        head=nn.Linear(hidden, num_classes),
        bottleneck=bottleneck,
    )


MODEL = Entry("cnn", cnn)
