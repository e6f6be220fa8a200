"""Small models drawn from a grammar: layers × dtypes × state × outputs × oddities."""

import random
from math import prod
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

LAYERS = ("linear", "conv", "gru", "attention", "group", "batch", "dropout", "weight", "spectral")
DTYPES = ("float32",) * 6 + ("float64", "float16", "bfloat16", "complex64")
STATES = ("none",) * 4 + ("mean", "frozen", "average", "late", "memory", "bank", "counter", "fresh")
MOVING = {"mean", "frozen", "average", "late"}
OUTPUTS = ("tensor",) * 6 + ("dict", "tuple", "object", "squeeze", "none", "ids", "double", "fewer")
ODD = ("none",) * 8 + (
    *("writes", "random", "numpy", "raises", "leaves", "tied", "aliased", "lock", "dtype"),
    *(
        "gradients",
        "grows",
        "swaps",
        "name",
        "unused",
        "scalar",
        "empty",
        "extra",
        "nan",
        "unseeded",
    ),
)


class Wordless(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Drawn(nn.Module):
    """A model whose parts are drawn."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, number: int) -> None:
        super().__init__()
        draw = random.Random(f"model {number}")
        self.layer, self.dtype = draw.choice(LAYERS), getattr(torch, draw.choice(DTYPES))
        self.state, self.output, self.odd = map(draw.choice, (STATES, OUTPUTS, ODD))
        size = prod(input_shape)
        self.body, self.head = nn.Linear(size, 8), nn.Linear(8, num_classes)
        self.middle = self._middle()
        self.register_buffer("kept", torch.zeros(size), persistent=self.state != "fresh")
        self.still = nn.Parameter(torch.zeros(size), requires_grad=False)
        self.bank: list[Tensor] = []
        self.calls = 0
        self._make_odd()
        if self.dtype != torch.float32:
            self.to(self.dtype)

    def _middle(self) -> nn.Module:
        match self.layer:
            case "conv":
                return nn.Conv1d(1, 1, 3, padding=1)
            case "gru":
                return nn.GRU(8, 8, batch_first=True)
            case "attention":
                return nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
            case "group":
                return nn.GroupNorm(2, 8)
            case "batch":
                return nn.BatchNorm1d(8)
            case "dropout":
                return nn.Dropout(0.5)
            case "weight":
                return parametrizations.weight_norm(nn.Linear(8, 8))
            case "spectral":
                return parametrizations.spectral_norm(nn.Linear(8, 8))
        return nn.Linear(8, 8)

    def _make_odd(self) -> None:
        match self.odd:
            case "tied":
                self.again = self.body
            case "aliased":
                memory = torch.ones(8)
                self.left, self.right = nn.Parameter(memory), nn.Parameter(memory)
            case "lock":
                self.lock = __import__("threading").Lock()
            case "dtype":
                torch.set_default_dtype(torch.float64)
            case "name":
                self.register_buffer("__metadata__", torch.zeros(1))
            case "scalar":
                self.scale = nn.Parameter(torch.tensor(1.0))
            case "empty":
                self.nothing = nn.Parameter(torch.zeros(0, 3))
            case "unused":
                self.spare = nn.Linear(2, 2)
            case "unseeded":
                self.body.weight.data.add_(
                    torch.from_numpy(np.random.default_rng().normal(size=8))[:, None]
                )

    def get_extra_state(self) -> Tensor:
        """Give a number that no load sets."""
        return torch.tensor(self.calls)

    def set_extra_state(self, state: Tensor) -> None:
        """Leave it."""

    def state_dict(self, *args, **options):
        """Return the state, with the extra one where that is the oddity."""
        state = super().state_dict(*args, **options)
        return state if self.odd == "extra" else {k: v for k, v in state.items() if k[0] != "_"}

    def forward(self, x: Tensor):
        """Return what was drawn."""
        self.calls += 1
        x = self._odd_input(x)
        h = self.body(x.flatten(1).to(self.body.weight.dtype)).relu()
        if self.layer in ("conv", "gru", "attention"):
            h = self.middle(h.unsqueeze(1))
            h = (h[0] if isinstance(h, tuple) else h).squeeze(1)
        else:
            h = self.middle(h)
        return self._out(self._with_state(h, x.flatten(1).detach()))

    def _odd_input(self, x: Tensor) -> Tensor:
        match self.odd:
            case "writes":
                x.mul_(2)
            case "raises":
                raise Wordless
            case "leaves" if len(x) > 2:
                raise SystemExit(0)
            case "gradients":
                torch.set_grad_enabled(False)
            case "random":
                return x * (1 + random.random()) + float(np.random.rand())  # noqa: NPY002
            case "grows" if self.training and not hasattr(self, "late"):
                self.late = nn.Parameter(torch.zeros(1))
            case "swaps":
                self.head.bias = nn.Parameter(self.head.bias.detach().clone())
            case "nan":
                return x * float("nan")
        return x

    def _with_state(self, h: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            match self.state:
                case "mean" if self.training:
                    self.kept = x.mean(0).to(self.kept.dtype)
                case "late" if self.training and len(x) > 2:
                    self.kept.copy_(x.mean(0))
                case "frozen" if self.training:
                    self.still.copy_(x.mean(0))
                case "average" if self.training:
                    self.kept.mul_(0.9).add_(x.mean(0), alpha=0.1)
                case "fresh":
                    self.kept += 1
        if self.state == "counter":
            return h * (1 + 0.01 * self.calls)
        if self.state in ("memory", "bank"):
            if len(self.bank) > (2 if self.state == "bank" else 0):
                h = h + self.bank[-1]
            self.bank.append(h.detach().mean(0))
        return h

    def _out(self, h: Tensor):
        logits = self.head(h * self.scale if self.odd == "scalar" else h)
        if self.odd == "aliased":
            logits = logits + (self.left * self.right).sum()
        return {
            "dict": lambda: {"logits": logits},
            "tuple": lambda: (logits, h),
            "object": lambda: SimpleNamespace(logits=logits),
            "squeeze": logits.squeeze,
            "none": lambda: None,
            "ids": lambda: logits.argmax(1),
            "double": logits.double,
            "fewer": lambda: logits[:, 1:],
        }.get(self.output, lambda: logits)()
