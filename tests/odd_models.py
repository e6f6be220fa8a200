"""Models as users write them, with one oddity each: `tests.odd_models:name` in a config."""

import itertools
import random
from math import prod
from types import SimpleNamespace

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


class Unused(Plain):
    """Has a parameter that the loss does not use, and one of each odd shape that it does."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.spare = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.empty = nn.Parameter(torch.zeros(0, 3))

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) * self.scale + self.empty.sum()


class Typed(Plain):
    """Computes in a type of its own; the head stays in float32 if it is mixed."""

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        dtype: str = "float16",
        mixed: bool = False,
    ) -> None:
        super().__init__(input_shape, num_classes)
        self.dtype = getattr(torch, dtype)
        (self.body if mixed else self).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().features(x.to(self.dtype)).to(self.head.weight.dtype))


class Complex(Plain):
    """Holds complex numbers."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.phase = nn.Parameter(torch.zeros(8, dtype=torch.complex64))

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) + self.phase.real


class Frozen(Plain):
    """Trains nothing."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.requires_grad_(requires_grad=False)


class Squeezed(Plain):
    """Drops the dimension of the batch where it is 1."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


class Tokens(nn.Module):
    """Embeds whole numbers."""

    def __init__(self, num_classes: int, *, sparse: bool = False, attend: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 8, sparse=sparse)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.attend = (
            nn.TransformerEncoder(layer, 1, enable_nested_tensor=False) if attend else None
        )
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.long())
        return self.head((h if self.attend is None else self.attend(h)).mean(1))


class Attending(nn.Module):
    """A transformer's encoder over the features of an example."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.lift = nn.Linear(1, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.lift(x.flatten(1).unsqueeze(2))).mean(1))


class Returning(Plain):
    """Returns its logits in something else."""

    def __init__(self, input_shape: Shape, num_classes: int, *, kind: str = "dict") -> None:
        super().__init__(input_shape, num_classes)
        self.kind = kind

    def forward(self, x: Tensor):
        logits = super().forward(x)
        return {
            "dict": {"loss": None, "logits": logits},
            "tuple": (logits, None),
            "object": SimpleNamespace(logits=logits, hidden=x),
            "loss": {"loss": logits.sum()},
            "none": None,
        }[self.kind]


class TakesDict(Plain):
    """Takes its input by a name."""

    def forward(self, x) -> Tensor:
        return super().forward(x["pixel_values"])


class Raising(Plain):
    """Raises what no list of exceptions has."""

    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit(3)


class Bank(Plain):
    """Adds the features of earlier batches, kept in a list, once there are three."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.bank: list[Tensor] = []

    def features(self, x: Tensor) -> Tensor:
        h = super().features(x)
        if len(self.bank) > 2:
            h = h + torch.stack(self.bank).mean(0)
        self.bank.append(h.detach().mean(0))
        return h


class ClassBank(Plain):
    """Keeps features in a list of the class, and never uses them."""

    bank: list[Tensor] = []  # noqa: RUF012

    def features(self, x: Tensor) -> Tensor:
        h = super().features(x)
        self.bank[:] = [h.detach()]
        return h


class Growing(Plain):
    """Makes a layer when it first trains."""

    def features(self, x: Tensor) -> Tensor:
        if self.training and not hasattr(self, "late"):
            self.late = nn.Linear(8, 8)
        h = super().features(x)
        return self.late(h) if hasattr(self, "late") else h


class Aliased(Plain):
    """Holds two parameters in one memory."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        memory = torch.randn(8)
        self.left, self.right = nn.Parameter(memory), nn.Parameter(memory)

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) * self.left + self.right


class Alone(Plain):
    """Is its own copy."""

    def __deepcopy__(self, memo: dict) -> "Alone":
        return self


class Named(Plain):
    """Has a buffer whose name a file cannot hold."""

    def __init__(self, input_shape: Shape, num_classes: int, *, buffer: str = "") -> None:
        super().__init__(input_shape, num_classes)
        self.register_buffer(buffer, torch.zeros(2))


class Setting(Plain):
    """Changes a setting of torch for the whole process."""

    def __init__(self, input_shape: Shape, num_classes: int, *, setting: str = "dtype") -> None:
        super().__init__(input_shape, num_classes)
        if setting == "dtype":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_grad_enabled(False)


class EndsLate(Plain):
    """Ends the process where the batch is larger than that of a trial."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise SystemExit(0)
        return super().forward(x)


class Adapted(Plain):
    """Trains its head and what stands beside a frozen layer; a parameter of it has two names."""

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.body.requires_grad_(requires_grad=False)
        self.beside = nn.Linear(prod(input_shape), 8, bias=False)
        self.again = self.beside

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) + self.again(x.flatten(1))
