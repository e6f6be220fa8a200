"""Small networks, their gradients, and what comes back; plain functions."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Estimate, LocalTraining, Observation, Update, View

CLASSES = 5


def net(*layers: nn.Module, seed: int = 0) -> nn.Sequential:
    """Return a float64 network whose weights depend on the seed, whatever was built before."""
    model = nn.Sequential(*layers).double()
    with global_stream(seed, "net"):
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.reset_parameters()
    return model


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    """Return smooth random pictures in [0, 1], float64."""
    stream = generator(seed, "images", count)
    coarse = torch.rand(count, shape[0], 4, 4, generator=stream, dtype=torch.float64)
    return functional.interpolate(coarse, size=shape[1:], mode="bilinear")


def gradient(model: nn.Module, x: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> dict:
    """Return the mean gradient of a batch."""
    loss = functional.cross_entropy(model(x), labels, label_smoothing=smoothing)
    found = torch.autograd.grad(loss, list(model.parameters()))
    return dict(zip((name for name, _ in model.named_parameters()), found, strict=True))


def sent(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def view(model: nn.Module, delta: dict, count: int | None, local: LocalTraining | None = None):
    """Return what the server sees of a client."""
    local = local or LocalTraining(0.1, max(1, count or 1), upload="gradient")
    return View([Observation(sent(model), Update(1, "0", delta, count), local)])


def values_of(answer: Tensor | Estimate) -> Tensor:
    """Return the numbers of an answer, whether it has their uncertainty or not."""
    return answer.values if isinstance(answer, Estimate) else answer


def psnr(found: Tensor | Estimate, true: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB, of pixels in [0, 1]."""
    found = values_of(found)
    return float(-10 * torch.log10((found.double() - true.double()).square().mean()))
