"""Architectures as they are in use, at sizes that two cores attack in minutes."""

from math import prod

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


class Recurrent(nn.Module):
    """The last state of a recurrent layer goes into the head."""

    def __init__(self, layer: type[nn.LSTM | nn.GRU], shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.body = layer(shape[1], 48, batch_first=True)
        self.head = nn.Linear(48, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class Block(nn.Module):
    """Two convolutions beside a connection that skips them."""

    def __init__(self, channels: int, *, norm: bool, smooth: bool) -> None:
        super().__init__()
        first, second = (_conv(channels, channels, norm=norm, smooth=smooth) for _ in range(2))
        self.body, self.last = nn.Sequential(*first, *second[:-1]), second[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.body(x))


class Encoder(nn.Module):
    """Two layers of a transformer on vectors with learnt positions; their mean goes into a head."""

    def __init__(
        self, cut: nn.Module, length: int, width: int, num_classes: int, *, smooth: bool
    ) -> None:
        super().__init__()
        self.cut, self.place = cut, nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width,
            4,
            2 * width,
            dropout=0.0,
            batch_first=True,
            activation="gelu" if smooth else "relu",
        )
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.cut(x) + self.place).mean(dim=1))


class Transposed(nn.Module):
    """Words first, then their entries."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT


def _kink(*, smooth: bool) -> nn.Module:
    return nn.Tanh() if smooth else nn.ReLU()


def _pool(*, smooth: bool) -> nn.Module:
    return nn.AvgPool2d(2) if smooth else nn.MaxPool2d(2)


def _conv(
    into: int,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    *,
    norm: bool = False,
    smooth: bool,
) -> list[nn.Module]:
    """Return a convolution, its norm and its activation."""
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=not norm)
    return [conv, *([nn.BatchNorm2d(out)] if norm else []), _kink(smooth=smooth)]


def mlp(input_shape: Shape, num_classes: int, *, smooth: bool = False) -> nn.Module:
    """One hidden layer."""
    size = prod(input_shape)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size, 64), _kink(smooth=smooth), nn.Linear(64, num_classes)
    )


def lenet(input_shape: Shape, num_classes: int, *, smooth: bool = False) -> nn.Module:
    """Two convolutions with pooling, two linear layers."""
    return nn.Sequential(
        *_conv(input_shape[0], 6, 5, smooth=smooth), _pool(smooth=smooth),
        *_conv(6, 16, 5, smooth=smooth), _pool(smooth=smooth), nn.Flatten(),
        nn.Linear(64, 84), _kink(smooth=smooth), nn.Linear(84, num_classes),
    )  # fmt: skip


def resnet(
    input_shape: Shape, num_classes: int, *, norm: bool = False, smooth: bool = False
) -> nn.Module:
    """Two blocks that are skipped, with batch norm or without."""
    return nn.Sequential(
        *_conv(input_shape[0], 16, norm=norm, smooth=smooth),
        Block(16, norm=norm, smooth=smooth), nn.AvgPool2d(2),
        Block(16, norm=norm, smooth=smooth), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, num_classes),
    )  # fmt: skip


def mobilenet(input_shape: Shape, num_classes: int, *, smooth: bool = False) -> nn.Module:
    """Convolutions of each channel by itself, then across channels, with batch norm."""
    part = lambda i, o, s: [
        *_conv(i, i, 3, s, i, norm=True, smooth=smooth), *_conv(i, o, 1, norm=True, smooth=smooth)
    ]  # fmt: skip
    return nn.Sequential(
        *_conv(input_shape[0], 16, 3, 2, norm=True, smooth=smooth), *part(16, 32, 1),
        *part(32, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )  # fmt: skip


def vgg(input_shape: Shape, num_classes: int, *, smooth: bool = False) -> nn.Module:
    """Pairs of convolutions with pooling, two linear layers."""
    return nn.Sequential(
        *_conv(input_shape[0], 16, smooth=smooth), *_conv(16, 16, smooth=smooth),
        _pool(smooth=smooth),
        *_conv(16, 32, smooth=smooth), *_conv(32, 32, smooth=smooth), _pool(smooth=smooth),
        nn.Flatten(), nn.Linear(128, 64), _kink(smooth=smooth), nn.Linear(64, num_classes),
    )  # fmt: skip


def vit(input_shape: Shape, num_classes: int, *, smooth: bool = False) -> nn.Module:
    """A transformer on patches of 4×4 pixels."""
    channels, high, wide = input_shape
    cut = nn.Sequential(nn.Conv2d(channels, 32, 4, stride=4), nn.Flatten(2), Transposed())
    return Encoder(cut, high * wide // 16, 32, num_classes, smooth=smooth)


def text_transformer(input_shape: Shape, num_classes: int, *, smooth: bool = False) -> nn.Module:
    """A transformer on the vectors of words, as they come out of an embedding."""
    return Encoder(nn.Identity(), *input_shape, num_classes, smooth=smooth)


def conv1d(input_shape: Shape, num_classes: int, *, smooth: bool = False) -> nn.Module:
    """Two convolutions along time."""
    return nn.Sequential(
        nn.Conv1d(input_shape[0], 24, 3, padding=1), _kink(smooth=smooth),
        nn.Conv1d(24, 24, 3, 2, 1), _kink(smooth=smooth), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(24, num_classes),
    )  # fmt: skip


def strided(input_shape: Shape, num_classes: int) -> nn.Module:
    """The negative control: three of four pixels are under no window."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 24, 1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(384, num_classes)
    )


def lstm(input_shape: Shape, num_classes: int) -> nn.Module:
    """One recurrent layer of long short-term memory."""
    return Recurrent(nn.LSTM, input_shape, num_classes)


def gru(input_shape: Shape, num_classes: int) -> nn.Module:
    """One recurrent layer of gated units."""
    return Recurrent(nn.GRU, input_shape, num_classes)
