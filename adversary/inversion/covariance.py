"""How uncertain inputs are that were fitted by least squares, number by number.

H. White, "A heteroskedasticity-consistent covariance matrix estimator", Econometrica 1980: with J
the residual's Jacobian and r what is left, (JᵀJ)⁻¹ Jᵀ diag(r²) J (JᵀJ)⁻¹. Uploads are rounded, and
by more where weights are larger, so that the entries' errors differ. Directions that the upload
does not determine have the standard deviation of a number that is even in [0, 1].

It holds for the labels and the order of the fit. With wrong ones, or a protocol that is not the
client's, what is left is no rounding, and the uncertainty tells no error.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.inversion.joint import DENSE, Linearised, Residual

EVEN = 1 / math.sqrt(12)  # standard deviation of a number that is even in [0, 1]


def deviations(
    residual: Residual, inputs: Float[Tensor, "n *shape"]
) -> Float[Tensor, "n *shape"] | None:
    """Return the standard deviation of each number of a fit, at most `EVEN`.

    None of more than `DENSE` numbers, whose Jacobian is not formed.

    Args:
        residual: Of the fit.
        inputs: At its minimum.
    """
    at = Linearised(residual, inputs)
    if not at.fits(DENSE):
        return None
    columns, left = at.columns(), at.value.square()
    numbers, entries = columns.shape
    freedom = max(entries - numbers, 1)
    gram, unit = columns @ columns.T, torch.eye(numbers, dtype=columns.dtype)
    ridge = float(left.sum()) / freedom / EVEN**2
    ridge = max(ridge, torch.finfo(gram.dtype).eps * float(gram.diagonal().mean()))
    spread = (columns * left) @ columns.T * (entries / freedom) + (ridge * EVEN) ** 2 * unit
    inverse = torch.linalg.inv(gram + ridge * unit)
    variance = (inverse @ spread @ inverse).diagonal()
    return variance.clamp(0, EVEN**2).sqrt().nan_to_num(nan=EVEN).view_as(inputs)
