"""The solutions of one layer's system: densely where it is small, by products with U elsewhere."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.costs import Cost
from adversary.inversion.chain import Layer
from adversary.inversion.identifiability import system as equations
from adversary.inversion.operators import least_squares, operator_bytes
from adversary.inversion.systems import ConvSystem, solved_densely

REFINED = 4  # steps of iterative refinement
NOTHING = 1e-11  # eigenvalues below this share of the largest are none
STEPS = 3000  # of conjugate gradients
DENSE_RATE, PRODUCT_RATE = 2e10, 1e10  # operations that a core does in a second, about
SMOOTHED = 3  # solutions' products that the smoothest picture takes, with its start and its end
EIGEN = 9  # operations of an eigendecomposition, of n³
CONVERGED = 1e-14  # share of the normal equations' right side that is left


@dataclass(frozen=True, eq=False)
class Solution:
    """The solutions of a system: one point, and the directions that it leaves open.

    Attributes:
        point: Of least norm around `centre`, (c, h, w).
        rank: Of the system.
        basis: An orthonormal basis of what it sees, (rank, n); None where it sees everything, or
            was not solved densely.
        system: Whose solutions these are, where the basis was not formed.
    """

    point: Float[Tensor, "c h w"]
    rank: int
    basis: Float[Tensor, "rank n"] | None
    system: ConvSystem | None = None

    @property
    def determined(self) -> bool:
        """Whether the point is the only solution."""
        return self.basis is None and self.system is None

    def project(self, x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Return the nearest solution."""
        if self.system is not None:
            return _nearest(self.system, x)
        if self.basis is None:
            return self.point
        away = (x - self.point).flatten()
        return x - (self.basis.T @ (self.basis @ away)).view_as(x)


def solve(system: ConvSystem, *, centre: float = 0.0) -> Solution:
    """Solve a layer's system, float64.

    Densely up to 6,500 unknowns (`DENSE`), or where constraints are fewer, up to 4,000 of these
    (`DENSE_ROWS`) and as many numbers of U; so are most layers of the papers' networks at 32×32
    pixels. Elsewhere by products with U alone: conjugate gradients on the normal equations,
    O(fan·C_out·places) operations a step and O(fan·places) numbers. These
    end short of the solution where the system is badly conditioned, and the rank is that of systems
    in general position (`adversary.inversion.identifiability`).

    Args:
        system: Of one layer.
        centre: What entries are near that the system says nothing of.
    """
    if system.is_dense:
        return solve_densely(system, centre=centre)
    start = torch.full(system.layer.shape, centre, dtype=system.weight.dtype)
    least = least_squares(system.operator, system.target, start, steps=STEPS, tolerance=CONVERGED)
    layer = system.layer
    rank = equations(layer.name, layer.module, layer.shape, layer.out, head=False).rank
    rank = min(rank, system.constraints)
    exact = least.converged and rank == system.unknowns
    return Solution(least.point, rank, None, None if exact else system)


def _nearest(system: ConvSystem, x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """Return the solution nearest to a point, by products with U."""
    return least_squares(system.operator, system.target, x, steps=STEPS, tolerance=CONVERGED).point


def solve_densely(system: ConvSystem, *, centre: float = 0.0) -> Solution:
    """Solve a layer's system by its normal equations, float64.

    Full rank: Jacobi scaling, Cholesky, iterative refinement with the true operator. Otherwise by
    the eigenvectors of UᵀU or UUᵀ, whichever is smaller. O(n³) for n unknowns, and n² numbers.

    Args:
        system: Of one layer.
        centre: What entries are near that the system says nothing of.
    """
    if system.constraints >= system.unknowns:
        dense = system.matrix()
        unique = _full(system, dense)
        if unique is not None:
            return Solution(unique, system.unknowns, None)
        values, vectors = torch.linalg.eigh(dense)
        determined = values > NOTHING * values[-1]
        values, basis = values[determined], vectors[:, determined].T.contiguous()
    else:
        rows = system.rows()
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        determined = values > NOTHING * values[-1]
        values = values[determined]
        basis = (vectors[:, determined] / values.sqrt()).T @ rows
    point = torch.full(system.layer.shape, centre, dtype=basis.dtype)
    for _ in range(REFINED):
        off = (system.right - system.normal(point[None])).flatten()
        point = point + (basis.T @ ((basis @ off) / values)).view_as(point)
    return Solution(point, int(determined.sum()), basis)


def _full(system: ConvSystem, dense: Tensor) -> Tensor | None:
    """Return the only solution, or None where the matrix is not safely positive definite."""
    scale = dense.diagonal().clamp(min=torch.finfo(dense.dtype).tiny).rsqrt()
    if not bool((dense.diagonal() > NOTHING * dense.diagonal().max()).all()):
        return None
    factor, failed = torch.linalg.cholesky_ex(scale[:, None] * dense * scale)
    if int(failed) or float(factor.diagonal().min()) < NOTHING**0.5:
        return None
    x = torch.zeros(system.layer.shape, dtype=dense.dtype)
    for _ in range(REFINED):
        off = (system.right - system.normal(x[None])).flatten()
        step = torch.cholesky_solve((scale * off)[:, None], factor)[:, 0]
        x = x + (scale * step).view_as(x)
    return x


def cost(layer: Layer) -> Cost:
    """Return what solving a convolution's system costs at most, from its shapes; see `solve`."""
    system = equations(layer.name, layer.module, layer.shape, layer.out, head=False)
    rows, n, places = system.rows, system.unknowns, prod(layer.out[1:])
    weight = layer.module.weight
    assert isinstance(weight, Tensor)
    channels, fan = len(weight), weight[0].numel()
    if not solved_densely(rows, n):
        operations = SMOOTHED * STEPS * 8.0 * channels * fan * places
        return Cost(operations / PRODUCT_RATE, operator_bytes(fan, places, channels) + 64.0 * n)
    if rows >= n:
        kernel = channels * fan // layer.shape[0] * (n // layer.shape[0])
        cubes = 1 if system.rank == n else EIGEN + 1
        return Cost(cubes * n**3 / DENSE_RATE, 8.0 * (4 * n**2 + kernel))
    operations = EIGEN * rows**3 + 4 * rows**2 * n
    return Cost(operations / DENSE_RATE, 8.0 * (3 * rows * n + 3 * rows**2))
