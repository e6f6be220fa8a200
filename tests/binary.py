"""Models of one logit for two classes, as they are written for a binary cross-entropy."""

from math import prod

import torch
from torch import Tensor, nn

from fedsim.core.rng import generator
from fedsim.data import Dataset


class OneLogit(nn.Module):
    """A layer of ReLU and one logit of shape (n, 1)."""

    def __init__(self, input_shape, *, width: int = 16, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.Linear(prod(input_shape), width)
        self.head = nn.Linear(width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(1)).relu())


class Flat(OneLogit):
    """One logit of shape (n,); of a single example a number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


class Halved(OneLogit):
    """A logit that no linear layer gives."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 0] / 2


class Probability(OneLogit):
    """What a binary cross-entropy of probabilities takes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


def two_blobs(root, *, size: int = 600) -> Dataset:
    """Two classes of Gaussian blobs in eight dimensions."""
    stream = generator(0, "two blobs")
    labels = torch.arange(size) % 2
    inputs = torch.randn(size, 8, generator=stream) + labels.unsqueeze(1)
    half = size // 2
    return Dataset(
        inputs=inputs[:half], labels=labels[:half], test_inputs=inputs[half:],
        test_labels=labels[half:], num_classes=2,
    )  # fmt: skip
