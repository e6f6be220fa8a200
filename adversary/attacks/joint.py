"""The joint attack: Gauss-Newton steps on the whole gradient map.

fedsim's own. The residual is that of deep leakage from gradients (L. Zhu, Z. Liu, S. Han, NeurIPS
2019), ‖∇ℓ(x) − g‖².

Idea: what no layer tells by itself all layers may tell together. A Gauss-Newton step needs only
products with the Jacobian of the gradient in the input, which automatic differentiation gives, and
converges where first-order and quasi-Newton matching diverge.

*Server must know*: the weights sent, the gradient of one step, and how many examples it is of.
*Exact when*: the Jacobian has full rank (`fedsim explain`) and activations are smooth; the kinks of
ReLU stop it early.
*Differs from the paper*: there is none. Labels come from a label attack. Starts from grey, and from
noise where there are several examples or restarts; the start with the lowest residual wins.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.inversion.joint import Fit, gauss_newton
from adversary.inversion.reading import (
    batch_gradient,
    batch_labels,
    input_shape,
    precise,
    weights,
)
from fedsim.types import Auxiliary, View

SPREAD = 0.1  # standard deviation of a random start


def joint(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    steps: int = 40,
    restarts: int = 1,
) -> Float[Tensor, "n *shape"]:
    """Return inputs whose gradient is the observed one, as nearly as the steps came.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Of the label attack and of random starts.
        steps: Gauss-Newton steps of each start, at most.
        restarts: How many starts.

    Raises:
        ValueError: The client took several steps, or an example's gradient depends on more than
            the example; names the layer.
    """
    if min(steps, restarts) < 1:
        raise ValueError(f"joint: steps, restarts must be at least 1, got {steps}, {restarts}")
    latest, shape = view.latest, input_shape(auxiliary)
    gradient, sent = batch_gradient(latest, auxiliary), weights(latest, auxiliary)
    model = precise(auxiliary, latest.sent)
    labels = batch_labels(view, auxiliary, generator)
    best: Fit | None = None
    for place in range(restarts):
        start = torch.full((len(labels), *shape), 0.5, dtype=torch.float64)
        if place or len(labels) > 1:  # equal inputs would stay equal
            start = start + SPREAD * torch.randn(start.shape, generator=generator)
        fit = gauss_newton(
            model, sent, gradient, labels, start,
            smoothing=latest.local.label_smoothing, steps=steps,
        )  # fmt: skip
        best = fit if best is None or fit.error < best.error else best
    assert best is not None
    return best.inputs.float()
