"""Activations, backwards: the input from the output, and the slope there."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

EDGE = 1e-12  # outputs are kept this far from where an inverse is infinite


@dataclass(frozen=True)
class Activation:
    """An activation, backwards.

    Attributes:
        inverse: (module, output) → input; None where several inputs give the same output.
        kinked: Whether its slope jumps, so that smooth solvers may stick.
    """

    inverse: Callable[[nn.Module, Tensor], Tensor] | None
    kinked: bool = False


def _leaky(module: nn.Module, out: Tensor) -> Tensor:
    slope = module.negative_slope
    if not isinstance(slope, float) or slope <= 0:
        raise ValueError(f"LeakyReLU: slope must be above 0, got {slope}")
    return torch.where(out >= 0, out, out / slope)


def _softplus(module: nn.Module, out: Tensor) -> Tensor:
    beta = float(module.beta)  # type: ignore[arg-type]
    scaled = (beta * out).clamp(min=EDGE)
    return torch.where(scaled > 30, out, torch.expm1(scaled).log() / beta)


def _elu(module: nn.Module, out: Tensor) -> Tensor:
    alpha = float(module.alpha)  # type: ignore[arg-type]
    return torch.where(out > 0, out, torch.log1p((out / alpha).clamp(min=-1 + EDGE)))


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Sigmoid: Activation(lambda _, out: torch.logit(out, eps=EDGE)),
    nn.Tanh: Activation(lambda _, out: torch.atanh(out.clamp(-1 + EDGE, 1 - EDGE))),
    nn.LeakyReLU: Activation(_leaky, kinked=True),
    nn.Softplus: Activation(_softplus),
    nn.ELU: Activation(_elu),
    nn.ReLU: Activation(None, kinked=True),
    nn.SiLU: Activation(None),
    nn.GELU: Activation(None),
}


def invert(module: nn.Module, out: Tensor) -> Tensor:
    """Return the input of an activation.

    Raises:
        ValueError: It has no inverse.
    """
    inverse = ACTIVATIONS[type(module)].inverse
    if inverse is None:
        raise ValueError(f"{type(module).__name__}: several inputs give the same output")
    return inverse(module, out)


def slope(module: nn.Module, at: Tensor) -> Tensor:
    """Return the derivative of an activation at its inputs."""
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        (derivative,) = torch.autograd.grad(module(point).sum(), point)
    return derivative


def saturated(module: nn.Module, out: Tensor) -> float:
    """Return the share of outputs so near an asymptote that float32 does not tell their input."""
    if isinstance(module, nn.Sigmoid):
        away = torch.minimum(out, 1 - out)
    elif isinstance(module, nn.Tanh):
        away = 1 - out.abs()
    else:
        return 0.0
    return float((away < math.sqrt(torch.finfo(torch.float32).eps)).double().mean())
