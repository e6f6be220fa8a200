"""ResNet-18."""

from typing import Literal

from torch import nn

from fedsim.core.catalog import Entry
from fedsim.models.layers import Shape, image_shape


def resnet18(
    input_shape: Shape, num_classes: int, *, norm: Literal["group", "batch"] = "group"
) -> nn.Module:
    """Torchvision's ResNet-18, with GroupNorm(32) unless `norm = "batch"`; 11.2M parameters."""
    from torchvision.models import resnet18 as build

    channels = image_shape(input_shape, "resnet18", at_least=1)[0]
    group_norm = lambda width: nn.GroupNorm(32, width)
    model = build(
        num_classes=num_classes, norm_layer=nn.BatchNorm2d if norm == "batch" else group_norm
    )
    if channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model


MODEL = Entry("resnet18", resnet18, paper="He, Zhang, Ren, Sun, CVPR 2016")
