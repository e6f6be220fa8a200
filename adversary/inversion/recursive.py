"""From the last layer back to the input, one layer's linear system after another.

C. Chen, N. D. F. Campbell, "Analysing training-data leakage from gradients through linear systems
and gradient matching", BMVC 2022; J. Zhu, M. Blaschko, "R-GAP: recursive gradient attack on
privacy", ICLR 2021.

For one example everything a layer does is known on its far side: its output (the next layer's
input), and the gradient there. A linear layer's input is then a ratio of gradients, a convolution's
solves `systems.ConvSystem`, an activation is inverted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adversary.inversion.activations import ACTIVATIONS, invert, slope
from adversary.inversion.chain import Layer, NotWalkableError, grad_input
from adversary.inversion.solutions import Solution, solve
from adversary.inversion.systems import ConvSystem
from fedsim.core.types import Params

SCALES = 2001  # of a head without bias that are tried
SPAN = 12.0  # decades of them
NEWTON = 60  # steps of bisection


@dataclass(frozen=True, eq=False)
class Step:
    """What the walk found at one layer.

    Attributes:
        layer: Which.
        input: Its input, (*shape).
        grad_out: dL/d(output), (*out).
        solution: Of a convolution: all its solutions.
        residual: Of a convolution: by how much the input misses its system, of 1.
    """

    layer: Layer
    input: Tensor
    grad_out: Tensor
    solution: Solution | None = None
    residual: float = 0.0

    @property
    def hidden(self) -> int:
        """How many directions of the input its system leaves open."""
        return 0 if self.solution is None else self.input.numel() - self.solution.rank


Correct = Callable[[int, ConvSystem, Solution], Tensor]
"""(place in the chain, system, its solutions) → the input taken on a layer that is not
determined."""


def walk(
    layers: Sequence[Layer],
    sent: Params,
    gradient: Params,
    label: int,
    correct: Correct = lambda place, system, solution: solution.point,  # noqa: ARG005
    *,
    centre: float = 0.5,
) -> list[Step]:
    """Walk from the logits to the input of one example; the last step has the first layer's input.

    Args:
        layers: As `chain` returns them; the last is linear.
        sent: The weights, float64.
        gradient: Of one example at these weights, float64.
        label: Its label.
        correct: What to take where a convolution's system leaves directions open.
        centre: What pixels are near that the first layer's system says nothing of.

    Raises:
        NotWalkableError: A layer cannot be walked back through; names it.
        ValueError: No gradient reaches a layer.
    """
    if layers[-1].kind != "linear":
        raise NotWalkableError(f"{layers[-1].name}: the last layer must be linear")
    grad_out = head_gradient(layers[-1], sent, gradient, label)
    steps, x = [], torch.zeros(0)
    for place in reversed(range(len(layers))):
        layer = layers[place]
        if layer.kind == "linear":
            grad_out = grad_out if layer.bias is None else gradient[layer.bias]
            step = Step(layer, linear_input(gradient[layer.weight], grad_out), grad_out)
        elif layer.kind == "conv":
            system = _system(layer, sent, gradient, x, grad_out)
            solution = solve(system, centre=0.0 if place else centre)
            x = solution.point if solution.determined else correct(place, system, solution)
            step = Step(layer, x, grad_out, solution, system.residual(x))
        elif layer.kind == "flatten":
            step = Step(layer, x.view(layer.shape), grad_out.view(layer.shape))
        else:
            step = Step(layer, *_before(layers, place, x, grad_out))
        steps.append(step)
        x, grad_out = step.input, step.grad_out
        if layer.kind in ("linear", "conv"):
            grad_out = grad_input(layer, sent[layer.weight], grad_out[None])[0]
    return steps


def linear_input(
    grad_weight: Float[Tensor, "out in"], grad_out: Float[Tensor, " out"]
) -> Float[Tensor, " in"]:
    """Return the x for which dL/dW = dL/dz·xᵀ: the mean over rows, weighted as errors demand.

    Raises:
        ValueError: No gradient reaches the layer.
    """
    size = grad_out.square().sum()
    if not float(size) > 0:
        raise ValueError("update: a gradient must reach every layer, got zero")
    return grad_out @ grad_weight / size


def head_gradient(layer: Layer, sent: Params, gradient: Params, label: int) -> Tensor:
    """Return dL/d(logits): the bias's gradient, or without a bias the only one that fits.

    Without a bias dL/dW = (p − e_y)·hᵀ has rank one and leaves one scale open, which the softmax of
    W·h settles.

    Raises:
        ValueError: No scale fits.
    """
    if layer.bias is not None:
        return gradient[layer.bias]
    weight, grad_weight = sent[layer.weight], gradient[layer.weight]
    left, values, right = torch.linalg.svd(grad_weight, full_matrices=False)
    u, v = left[:, 0] * values[0], right[0]
    if u[label] > 0:  # p − e_y is negative at the label alone
        u, v = -u, -v
    logits = weight @ v

    def off(scale: float) -> float:
        """How far p(h = v·scale) − e_y is from u / scale, at the label."""
        p = (logits * scale).softmax(dim=0)
        return float(p[label] - 1 - u[label] / scale)

    tries = torch.logspace(-SPAN / 2, SPAN / 2, SCALES, dtype=torch.float64).tolist()
    signs = [off(scale) for scale in tries]
    scales = [
        _root(off, low, high)
        for low, high, a, b in zip(tries, tries[1:], signs, signs[1:], strict=False)
        if a * b <= 0
    ]
    if not scales:
        raise NotWalkableError(
            f"{layer.name}: must have a bias, or one scale of its input must fit"
        )
    aim = functional.one_hot(torch.tensor(label), len(u)).to(u.dtype)
    misfit = [float(((logits * s).softmax(dim=0) - aim - u / s).square().sum()) for s in scales]
    return u / scales[misfit.index(min(misfit))]


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    below = function(low)
    for _ in range(NEWTON):
        middle = math.sqrt(low * high)
        if function(middle) * below > 0:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def _before(
    layers: Sequence[Layer], place: int, out: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor]:
    """Return an activation's input and the gradient there; NaN where several inputs fit.

    A linear layer before it needs the gradient only; a convolution does without some inputs.
    """
    module = layers[place].module
    if ACTIVATIONS[type(module)].inverse is not None:
        x = invert(module, out)
        return x, grad_out * slope(module, x)
    if type(module) is torch.nn.ReLU:
        on = out > 0
        return torch.where(on, out, torch.nan), grad_out * on
    raise NotWalkableError(f"{layers[place].name} = {type(module).__name__}: has no inverse")


def _system(
    layer: Layer,
    sent: Params,
    gradient: Params,
    z: Tensor,
    grad_out: Tensor,
) -> ConvSystem:
    finite = None if bool(torch.isfinite(z).all()) else torch.isfinite(z)
    z = torch.nan_to_num(z)
    if layer.bias is not None:
        z = z - sent[layer.bias][:, None, None]
    return ConvSystem(
        layer=layer,
        weight=sent[layer.weight],
        out=z,
        grad_out=grad_out,
        grad_weight=gradient[layer.weight],
        mask=finite,
    )
