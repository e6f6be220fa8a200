"""Hyperplanes between a layer's active and inactive units, by logistic regression.

An input x is inactive on the units w with w·x + b < 0: what separates these units from the others
in the space of weights is an estimate of the input.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

RIDGE = 1e-3


def separating(
    features: Float[Tensor, "m b"],
    inactive: Bool[Tensor, " m"],
    start: Float[Tensor, " b"],
    *,
    steps: int,
) -> Float[Tensor, " b"]:
    """Return the normal of a hyperplane with inactive units on its negative side, if there is one.

    Args:
        features: Weights and biases of the units, orthogonal columns of mean square 1.
        inactive: On which units the input is inactive.
        start: Where Newton's method begins.
        steps: Of it.
    """
    sign = 1 - 2 * inactive.to(features.dtype)
    ridge = RIDGE * torch.eye(len(start), dtype=features.dtype)
    weights = start
    for _ in range(steps):
        margin = sign * (features @ weights)
        chance = torch.sigmoid(-margin)
        slope = features.T @ (sign * chance) - RIDGE * weights
        curved = features.T * (chance * (1 - chance)) @ features + ridge
        weights = weights + torch.linalg.solve(curved, slope)
    return weights
