"""The largest eigenvalue of a symmetric operator, by Lanczos' method."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 300
EVERY = 10  # steps between looks at the eigenvalues


def top(
    operator: Callable[[Tensor], Tensor],
    start: Float[Tensor, " n"],
    *,
    outside_of: Float[Tensor, "n k"],
    tolerance: float,
) -> tuple[Float[Tensor, " n"], float]:
    """Return a unit eigenvector of the largest eigenvalue, and the eigenvalue.

    All directions are kept and made orthogonal twice: in floating point they would not stay so.

    Args:
        operator: Symmetric, of float64 vectors.
        start: Where it begins; of an eigenvalue with several vectors the one nearest to it is the
            answer.
        outside_of: Orthonormal directions that are left out.
        tolerance: Length of the residual at which it ends.
    """
    clean = lambda v: v - outside_of @ (outside_of.T @ v)
    v = clean(clean(start))
    kept = torch.empty(min(STEPS, len(start)) + 1, len(start), dtype=start.dtype)
    kept[0] = v / v.norm()
    values, vectors = start.new_zeros(1), start.new_ones(1, 1)
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(len(kept) - 1):
        w = operator(kept[step])
        diagonal.append(float(w @ kept[step]))
        for _ in range(2):
            w = clean(w - kept[: step + 1].T @ (kept[: step + 1] @ w))
        beside.append(float(w.norm()))
        ended = beside[-1] < 1e-12
        if ended or step % EVERY == EVERY - 1 or step == len(kept) - 2:
            off = torch.tensor(beside[:-1], dtype=torch.float64)
            values, vectors = torch.linalg.eigh(
                torch.diag(torch.tensor(diagonal, dtype=torch.float64))
                + torch.diag(off, 1) + torch.diag(off, -1)
            )  # fmt: skip
            if ended or beside[-1] * abs(float(vectors[-1, -1])) < tolerance:
                break
        kept[step + 1] = w / beside[-1]
    return kept[: len(diagonal)].T @ vectors[:, -1], float(values[-1])
