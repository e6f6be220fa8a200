"""The network of the first papers on gradient leakage."""

from torch import nn

from fedsim.core.catalog import Entry
from fedsim.models.layers import Shape, image_shape, sequence


def lenet(input_shape: Shape, num_classes: int) -> nn.Module:
    """The sigmoid network of the gradient-leakage papers, all parameters from U(−0.5, 0.5).

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, official code.
    """
    channels, height, width = image_shape(input_shape, "lenet", at_least=1)
    model = sequence(
        *(nn.Conv2d(channels, 12, 5, padding=2, stride=2), nn.Sigmoid()),
        *(nn.Conv2d(12, 12, 5, padding=2, stride=2), nn.Sigmoid()),
        *(nn.Conv2d(12, 12, 5, padding=2), nn.Sigmoid()),
        nn.Flatten(),
        head=nn.Linear(12 * -(-height // 4) * -(-width // 4), num_classes),
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


MODEL = Entry("lenet", lenet, paper="Zhu, Liu, Han, NeurIPS 2019")
