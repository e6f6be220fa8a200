"""A layer's gradient as a product of low rank, in units of its own noise.

The gradient of a linear layer, weights and bias side by side, is DᵀX with one row of D and of X per
example: (units, features + 1) of rank B. What rounding or noise adds has full rank, and its size in
a row is what remains of the row outside the B leading directions (a randomised range finder with
one power step: N. Halko, P. Martinsson, J. Tropp, SIAM Review 2011, algorithm 4.4).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

ALIVE = 1e-9  # a row below this share of the largest has no example
GAP = 30.0  # a singular value that is this many times the next one ends the signal
MORE = 12  # directions beyond B that are looked at
READABLE = 50.0  # noise levels that a row must exceed
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Factors:
    """Rows of a gradient in their B leading directions.

    Attributes:
        rows: In units of each row's noise, shape (units, B).
        values: Their singular values, largest first.
        right: The directions, orthonormal, shape (B, features + 1); the bias stands last.
        alive: Which of the layer's units the rows are, shape (all units,).
    """

    rows: Float[Tensor, "m b"]
    values: Float[Tensor, " b"]
    right: Float[Tensor, "b n"]
    alive: Bool[Tensor, " units"]


def factors(gradient: Float[Tensor, "units n"], count: int, generator: Generator) -> Factors:
    """Return the factors of a layer's gradient.

    Args:
        gradient: dL/dW and, as its last column, dL/db; float64.
        count: Number of examples, B.
        generator: Of the range finder's directions.

    Raises:
        ValueError: Fewer units than examples are active, or the rank is another.
    """
    if count < 1:
        raise ValueError(f"num_examples: must be at least 1, got {count}")
    norms = gradient.norm(dim=1)
    alive = norms > ALIVE * norms.max()
    if int(alive.sum()) < count:
        raise ValueError(f"update: {count} units must be active, got {int(alive.sum())}")
    rows = gradient[alive] / norms[alive, None]
    values, right = _leading(rows, count + MORE, generator)
    _check_rank(values, count)
    noise = _noise(rows, right[:count], float(values[0]))
    readable = noise * READABLE < 1
    alive[alive.clone()] = readable
    if int(readable.sum()) < count:
        raise ValueError(f"update: {count} units must exceed the noise, got {int(readable.sum())}")
    scaled = rows[readable] / noise[readable, None]
    values, right = _leading(scaled, count, generator)
    return Factors(scaled @ right.T, values, right, alive)


def _leading(
    rows: Float[Tensor, "m n"], most: int, generator: Generator
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k n"]]:
    """Return the leading singular values, and the right singular vectors as rows."""
    size = min(most + MORE, *rows.shape)
    probes = torch.randn(len(rows), size, generator=generator, dtype=rows.dtype)
    basis = torch.linalg.qr(rows.T @ probes)[0]
    basis = torch.linalg.qr(rows.T @ torch.linalg.qr(rows @ basis)[0])[0]
    _, values, turn = torch.linalg.svd(rows @ basis, full_matrices=False)
    return values[:most], (turn @ basis.T)[:most]


def _check_rank(values: Float[Tensor, " k"], count: int) -> None:
    """Refuse another rank than that of one direction per example."""
    floor = EPS * float(values[0])
    sizes = [max(float(value), floor) for value in values]
    ratio = [larger / smaller for larger, smaller in pairwise(sizes)]
    if count <= len(ratio) and ratio[count - 1] < GAP:
        other = max(range(len(ratio)), key=lambda k: ratio[k]) + 1
        what = f"got {other}" if ratio[other - 1] >= GAP else "got none that stands out of noise"
        raise ValueError(f"update: the gradient must have rank {count}, one per example, {what}")


def _noise(
    rows: Float[Tensor, "m n"], right: Float[Tensor, "b n"], largest: float
) -> Float[Tensor, " m"]:
    """Return the standard deviation of each row's error per direction."""
    outside = rows - (rows @ right.T) @ right
    freedom = max(1, rows.shape[1] - len(right))
    return (outside.square().sum(dim=1) / freedom + (EPS * largest) ** 2).sqrt()
