"""The smoothest picture that explains an update exactly: total variation over an affine set.

fedsim's own; the seed paper corrects a deficient layer by gradient matching instead. A convolution
that does not determine its input still confines it to {x : U·x = v}. Among these pictures the one
of least total variation, within the range of pixels, is a convex problem with an exact projection:
A. Chambolle, T. Pock, "A first-order primal-dual algorithm for convex problems with applications to
imaging", 2011.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.inversion.operators import least_squares
from adversary.inversion.solutions import Solution
from fedsim.core import progress

STEPS = 500
PRIMAL = 0.02  # step size
INNER = 5  # steps of conjugate gradients of a projection
NEAR = 1e-5  # share of the normal equations' right side that a projection may leave
CHROMA = 3.0  # weight of the variation of colour, against that of brightness
OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))  # brightness, then colours


def smoothest(
    solution: Solution, *, steps: int = STEPS, low: float = 0.0, high: float = 1.0
) -> Float[Tensor, "c h w"]:
    """Return the solution of least total variation with entries in [low, high].

    Of a picture in three colours the variation of brightness and of two colour differences is
    taken, the latter with more weight: edges of colour are rarer, and most are edges of brightness.
    On CIFAR-10 behind `cnn2_c2` that is worth 5 dB over variation of all colours together.

    Args:
        solution: Of a layer's system, for a picture.
        steps: Of the primal-dual algorithm.
        low: The least value of a pixel.
        high: The largest.
    """
    if solution.determined:
        return solution.point
    project, point = _projection(solution), solution.point.float()
    x = point.clamp(low, high)
    colours = _colours(len(x))
    edges, range_ = torch.zeros(2, *x.shape), torch.zeros_like(x)
    dual = 1 / ((8 * float(torch.linalg.matrix_norm(colours, 2)) ** 2 + 1) * PRIMAL)
    for _ in progress.steps(steps, "steps to the smoothest picture"):
        before = x
        x = x - PRIMAL * (torch.einsum("dc,dhw->chw", colours, _divergence(edges)) + range_)
        x = project(x)
        ahead = 2 * x - before
        edges = edges + dual * _differences(torch.einsum("dc,chw->dhw", colours, ahead))
        edges = edges / edges.square().sum(dim=0).sqrt().clamp(min=1.0)
        range_ = range_ + dual * ahead
        range_ = range_ - dual * (range_ / dual).clamp(low, high)
    return solution.project(x.to(solution.point.dtype))


def _projection(solution: Solution) -> Callable[[Tensor], Tensor]:
    """Return the map to the nearest solution, float32.

    By products with U it is not exact: a few steps of conjugate gradients go on from the last
    call's correction, which changes little from one step of the primal-dual algorithm to the next.
    """
    if solution.basis is not None:
        basis = solution.basis.float()
        offset = basis @ solution.point.float().flatten()
        return lambda x: x + (basis.T @ (offset - basis @ x.flatten())).view_as(x)
    system = solution.system
    assert system is not None  # what is determined needs no projection
    operator, target = system.operator.single(), system.target.single()
    size = float(operator.adjoint(target).norm())
    correction = torch.zeros(solution.point.shape)

    def project(x: Tensor) -> Tensor:
        nonlocal correction
        start = x + correction
        nearest = least_squares(
            operator, target, start, steps=INNER, tolerance=NEAR, size=size
        ).point
        correction = nearest - x
        return nearest

    return project


def _colours(channels: int) -> Float[Tensor, "d c"]:
    """Return whose variation is taken."""
    if channels != len(OPPONENT):
        return torch.eye(channels)
    rows = torch.tensor(OPPONENT)
    return rows / rows.norm(dim=1, keepdim=True) * torch.tensor([[1.0], [CHROMA], [CHROMA]])


def _differences(x: Float[Tensor, "c h w"]) -> Float[Tensor, "2 c h w"]:
    """Return D·x: differences to the next row and to the next column; zero at the border."""
    differences = x.new_zeros(2, *x.shape)
    differences[0, :, :-1] = x[:, 1:] - x[:, :-1]
    differences[1, :, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    return differences


def _divergence(p: Float[Tensor, "2 c h w"]) -> Float[Tensor, "c h w"]:
    """Return Dᵀ·p."""
    divergence = torch.zeros_like(p[0])
    divergence[:, 1:] += p[0, :, :-1]
    divergence[:, :-1] -= p[0, :, :-1]
    divergence[:, :, 1:] += p[1, :, :, :-1]
    divergence[:, :, :-1] -= p[1, :, :, :-1]
    return divergence
