"""Two inputs of one gradient: the proof that what a derivative calls hidden is hidden.

From an input a step is made along hidden directions. Gauss-Newton steps bring back the gradient,
where the set of inputs that share it is curved. What J does not show (steps, detached parts, units
that switch) keeps the gradients apart.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.inversion.joint import gauss_newton
from adversary.inversion.products import Products

LENGTHS = (0.3, 0.03)  # of the step, root mean square over the entries that it changes
EQUAL = 1e-18  # squared relative error of a gradient that is the same
STEPS = 12


def paired(
    products: Products,
    size: Mapping[str, float],
    directions: Float[Tensor, "h n"],
    generator: Generator,
) -> bool:
    """Return whether another input, away along the directions, has the same gradient.

    Args:
        products: In float64, of all trained parameters, at the input.
        size: Of each parameter's rows of J; a parameter's gradient is compared at that size.
        directions: Orthonormal rows.
        generator: Draws a combination of them.
    """
    x = products.x.detach()
    scale = torch.cat(
        [x.new_full((d.numel(),), 1 / size[n])
         for n, d in zip(products.names, products.duals, strict=True)]
    )  # fmt: skip
    here = _flat(products.gradient).detach() * scale
    length = float(here.norm()) or 1.0

    def residual(point: Tensor) -> Tensor:
        return (_flat(products.gradient_at(point)) * scale - here) / length

    weights = torch.randn(len(directions), generator=generator, dtype=x.dtype)
    away = (weights @ directions).view_as(x)
    away = away / away.square().mean().sqrt() * min(1.0, len(directions) / x.numel()) ** 0.5
    low, high = float(x.min()) - 1, float(x.max()) + 1
    for step in LENGTHS:
        fit = gauss_newton(residual, x + step * away, steps=STEPS, low=low, high=high)
        moved = directions @ (fit.inputs - x).flatten()
        if fit.error <= EQUAL and float(moved.norm()) > step * float(away.norm()) / 2:
            return True
    return False


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
