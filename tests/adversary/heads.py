"""Models that end in all kinds of ways; what comes before is a body of theirs."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Headed(nn.Module):
    """A body and what ends it.

    Args:
        body: (n, *shape) → features that are never negative, shape (n, features).
        features: A multiple of 4.
        inputs: Entries of one input.
        classes: Of the logits.
    """

    def __init__(self, body: nn.Module, features: int, inputs: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.end(features, inputs, classes)

    def end(self, features: int, inputs: int, classes: int) -> None:
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Plain(Headed):
    """A linear layer."""


class Scaled(Headed):
    """Logits are divided."""

    def forward(self, x):
        return self.head(self.body(x)) / 8


class Product(Headed):
    """`h @ W + c`."""

    def end(self, features, inputs, classes):
        self.weight = nn.Parameter(torch.randn(features, classes) / features**0.5)
        self.shift = nn.Parameter(torch.zeros(classes))

    def forward(self, x):
        return self.body(x) @ self.weight + self.shift


class Convolution(Headed):
    """A convolution over places, then their mean."""

    def end(self, features, inputs, classes):
        self.head = nn.Conv1d(features // 4, classes, 1)

    def forward(self, x):
        return self.head(self.body(x).unflatten(1, (-1, 4))).mean(dim=2)


class Cosine(Headed):
    """Cosines with a weight per class."""

    def end(self, features, inputs, classes):
        self.weight = nn.Parameter(torch.randn(classes, features))

    def forward(self, x):
        return 8 * functional.normalize(self.body(x)) @ functional.normalize(self.weight).T


class Sum(Headed):
    """The sum of two linear layers, of features and of inputs."""

    def end(self, features, inputs, classes):
        self.deep, self.wide = nn.Linear(features, classes), nn.Linear(inputs, classes)

    def forward(self, x):
        return self.deep(self.body(x)) + self.wide(x.flatten(1))


class Normed(Headed):
    """A linear layer under weight norm."""

    def end(self, features, inputs, classes):
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(features, classes))


class Frozen(Headed):
    """A linear layer that is not trained."""

    def end(self, features, inputs, classes):
        self.head = nn.Linear(features, classes).requires_grad_(requires_grad=False)


class Tied(Headed):
    """A linear layer whose weight first codes the features, and decodes them."""

    def end(self, features, inputs, classes):
        self.weight = nn.Parameter(torch.randn(classes, features) / 3)
        self.shift = nn.Parameter(torch.zeros(classes))

    def forward(self, x):
        code = functional.linear(self.body(x), self.weight).relu()
        return functional.linear(functional.linear(code, self.weight.T), self.weight, self.shift)


class NoBias(Headed):
    """A linear layer without a bias."""

    def end(self, features, inputs, classes):
        self.head = nn.Linear(features, classes, bias=False)


class FrozenBias(Headed):
    """A linear layer whose bias is not trained."""

    def end(self, features, inputs, classes):
        self.head = nn.Linear(features, classes)
        self.head.bias.requires_grad_(False)


class OneLogit(Headed):
    """One logit for two classes."""

    def end(self, features, inputs, classes):
        self.head = nn.Linear(features, 1)


NOT_LINEAR = (Scaled, Product, Convolution, Cosine, Sum, Normed, Frozen, Tied)
TEN = (Plain, NoBias, *NOT_LINEAR)
