"""The network of the R-GAP paper, which its attack can invert layer by layer."""

from torch import nn

from fedsim.core.catalog import Entry
from fedsim.models.layers import Shape, image_shape, sequence


def rgap_cnn6(input_shape: Shape, num_classes: int) -> nn.Module:
    """The six convolutions of the R-GAP paper, without biases, and leaky ReLUs of slope 0.2.

    Source: Zhu, Blaschko, "R-GAP: Recursive Gradient Attack on Privacy", ICLR 2021, official code;
    with a head of one logit per class and a bias instead of one logistic unit without.
    """
    channels, height, width = image_shape(input_shape, "rgap-cnn6", at_least=4)
    layers: list[nn.Module] = []
    for fan_in, fan_out, kernel, stride, padding in (
        (channels, 12, 4, 2, 2),
        (12, 36, 3, 2, 1),
        (36, 36, 3, 1, 1),
        (36, 36, 3, 1, 1),
        (36, 64, 3, 2, 1),
        (64, 128, 3, 1, 1),
    ):
        layers.append(nn.Conv2d(fan_in, fan_out, kernel, stride, padding, bias=False))
        layers.append(nn.LeakyReLU(0.2))
    high, wide = (-(-(size // 2 + 1) // 4) for size in (height, width))
    return sequence(*layers, nn.Flatten(), head=nn.Linear(128 * high * wide, num_classes))


MODEL = Entry("rgap-cnn6", rgap_cnn6, paper="Zhu, Blaschko, ICLR 2021")
