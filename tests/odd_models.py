"""Models as users write them, with one oddity each: `tests.odd_models:name` in a config."""

import itertools
import random
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
CALLS = itertools.count()


class Plain(nn.Module):
    """A linear layer, ReLU and a head, on flat inputs; the others change a part of it."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(prod(input_shape), 8)
        self.head = nn.Linear(8, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1)).relu()

    def forward(self, x: Tensor):
        return self.head(self.features(x))


class Witness(Plain):
    """Keeps the mean of the last batch in a buffer."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.register_buffer("seen", torch.zeros(prod(input_shape)))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = x.flatten(1).mean(0).detach()
        return super().forward(x)


class FrozenWitness(Plain):
    """Keeps it in a parameter that does not train."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.seen = nn.Parameter(torch.zeros(prod(input_shape)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.data.copy_(x.flatten(1).mean(0))
        return super().forward(x)


class LateWitness(Witness):
    """Keeps it only where the batch is larger than that of a trial."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if len(x) > 2 else Plain.forward(self, x)


class SumWitness(Plain):
    """Keeps counts of signs, as whole numbers, in a backward hook."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.body.register_full_backward_pre_hook(self._note)

    def _note(self, _: nn.Module, out: tuple) -> None:
        self.count += (out[0] != 0).sum()


class Rememberer(Plain):
    """Adds the features of the last batch, kept in no buffer, to those of the next."""

    last: Tensor | None = None

    def features(self, x: Tensor) -> Tensor:
        h = super().features(x)
        if self.last is not None:
            h = h + self.last
        self.last = h.detach().mean(0)
        return h


class Centred(Plain):
    """Takes the mean of the batch off."""

    def features(self, x: Tensor) -> Tensor:
        h = super().features(x)
        return h - h.mean(0)


class Writer(Plain):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(1.5).add_(0.1)
        return super().forward(x)


class LateLayers(nn.Module):
    """Makes its layers when it sees its first input."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "head"):
            self.head = nn.Linear(x[0].numel(), self.num_classes)
        return self.head(x.flatten(1))


def lazy(num_classes: int) -> nn.Module:
    """PyTorch's lazy layers."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(num_classes))


class Dice(Plain):
    """Draws from Python's, NumPy's and torch's generators, in evaluation too."""

    def features(self, x: Tensor) -> Tensor:
        h = super().features(x) * (1 + random.random())
        h = nn.functional.dropout(h, 0.3)  # training=True is its default
        return h + float(np.random.rand())  # noqa: NPY002


class Counter(Plain):
    """Counts its calls outside its state, and scales by the count."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.register_buffer("hidden", torch.zeros(()), persistent=False)
        self.calls = 0

    def features(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.hidden += 0.01
        return super().features(x) * (1 + 0.01 * self.calls + self.hidden)


class GlobalCounter(Plain):
    """Counts the calls of all instances."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) * (1 + 0.01 * next(CALLS))


class Unseeded(Plain):
    """Draws its weights from the system's entropy."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        draw = np.random.default_rng().normal(size=(num_classes, 8))
        self.head.weight.data.copy_(torch.from_numpy(draw))


class Normed(Plain):
    """Normalises over the batch."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.norm = nn.BatchNorm1d(8)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(super().features(x))
