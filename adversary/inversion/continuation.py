"""Adam on a loss whose weight of smoothness falls on the way.

A large weight finds the large areas of a picture and a small one its edges. Which constant weight
is best depends on the network and on the number of iterations: from 0.3 to 0.003 on two networks
between 60 and 1,500 iterations. A weight that falls from `SMOOTH` to the final one at `SETTLED`
of the way is near the best constant at all of them.

Source of the idea: E. T. Hale, W. Yin, Y. Zhang, "Fixed-point continuation for ℓ1-minimization",
SIAM J. Optim. 2008.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.inversion.descent import Best, Changing, Project, scheduled

SMOOTH = 0.3  # weight of the mean total variation where a descent begins
SETTLED = 0.8  # share of the steps after which the weight stays


def weight_at(final: float | Tensor, share: float) -> float | Tensor:
    """Return the weight of smoothness at a share of the way, geometrically down to the final one.

    Args:
        final: Of all rows or of each. One that is 0, or above `SMOOTH`, is constant.
        share: In [0, 1].
    """
    left = max(0.0, 1 - share / SETTLED)
    if isinstance(final, Tensor):
        falls = (final > 0) & (final < SMOOTH)
        return torch.where(falls, final.clamp(min=1e-30) ** (1 - left) * SMOOTH**left, final)
    return final ** (1 - left) * SMOOTH**left if 0 < final < SMOOTH else final


def continued(
    evaluate: Changing,
    start: Float[Tensor, "rows n"],
    *,
    steps: int,
    lr: float | Float[Tensor, "rows 1"],
    signed: bool = False,
    project: Project | None = None,
) -> Best:
    """Adam whose rate falls to zero along a cosine; points count once the loss has settled.

    Args:
        evaluate: The losses.
        start: Where each row begins.
        steps: Evaluations.
        lr: Learning rate at the beginning, of all rows or of each.
        signed: Whether Adam is given the gradient's signs only.
        project: Puts points back to where they are allowed, after each step.
    """
    rate = lambda step: lr * ((1 + math.cos(math.pi * (step - 1) / steps)) / 2)
    return scheduled(
        evaluate, start, steps=steps, rate=rate, signed=signed, project=project, settled=SETTLED
    )
