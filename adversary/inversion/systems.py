"""The linear system of one layer: its input from its output and its weight's gradient.

J. Zhu, M. Blaschko, "R-GAP: recursive gradient attack on privacy", ICLR 2021; C. Chen,
N. D. F. Campbell, "Analysing training-data leakage from gradients through linear systems and
gradient matching", BMVC 2022.

For one example, a convolution's input x obeys z = W·x (weight constraints) and dL/dW = K(dL/dz)·x
(gradient constraints), where pixels of the padding are known to be zero and are left out. The tall
matrix [W; K] is never formed: K acts on every input channel alike, so that
KᵀK = I ⊗ K₀ᵀK₀ for one small K₀, and W only acts through convolutions.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from adversary.inversion.chain import Layer, zeros_around

REFINED = 4  # steps of iterative refinement
NOTHING = 1e-11  # eigenvalues below this share of the largest are none


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvSystem:
    """U·x = v for the input x of a convolution, for one example, float64.

    Attributes:
        layer: The convolution.
        weight: Its weight, (C_out, C_in, k, k).
        out: z without bias, (C_out, h', w').
        mask: Where z is known; None everywhere.
        grad_out: dL/dz, (C_out, h', w').
        grad_weight: dL/dW.
    """

    layer: Layer
    weight: Float[Tensor, "o c k l"]
    out: Float[Tensor, "o h w"]
    grad_out: Float[Tensor, "o h w"]
    grad_weight: Float[Tensor, "o c k l"]
    mask: Bool[Tensor, "o h w"] | None = None

    @property
    def conv(self) -> nn.Conv2d:
        """The layer's module."""
        assert isinstance(self.layer.module, nn.Conv2d)
        return self.layer.module

    @property
    def unknowns(self) -> int:
        """How many numbers the input has."""
        return self.layer.shape[0] * self.pixels

    @property
    def pixels(self) -> int:
        """How many of them a channel has."""
        return self.layer.shape[1] * self.layer.shape[2]

    @cached_property
    def kernel(self) -> Float[Tensor, "rows pixels"]:
        """K₀: what the weight's gradient sees of a channel, rows of unit length on average."""
        (h, w), conv = self.layer.shape[1:], self.conv
        (down, right), (pad, side) = conv.stride, padding(conv)
        channels, high, wide = self.grad_out.shape
        rows = self.grad_out.new_zeros(channels, *conv.kernel_size, h + 2 * pad, w + 2 * side)
        for i in range(conv.kernel_size[0]):
            for j in range(conv.kernel_size[1]):
                top, left = i * conv.dilation[0], j * conv.dilation[1]
                rows[
                    :, i, j, top : top + down * high : down, left : left + right * wide : right
                ] = self.grad_out
        inside = rows[..., pad : pad + h, side : side + w]
        return inside.flatten(3).flatten(0, 2) * self.scale

    @cached_property
    def scale(self) -> float:
        """What gradient constraints are multiplied by, to weigh as much as weight constraints."""
        of_weight, of_gradient = self.weight.square().mean(), self.grad_out.square().mean()
        return float((of_weight / of_gradient).sqrt()) if float(of_gradient) > 0 else 0.0

    @cached_property
    def sights(self) -> Float[Tensor, "rows channels"]:
        """What K₀ sees of each channel: the scaled gradient of the weight."""
        return self.grad_weight.permute(0, 2, 3, 1).flatten(0, 2) * self.scale

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o p q"]:
        """Return W·x, zero where z is not known."""
        conv = self.conv
        z = functional.conv2d(x, self.weight, None, conv.stride, conv.padding, conv.dilation)  # type: ignore[arg-type]
        return z if self.mask is None else z * self.mask

    def backward(self, z: Float[Tensor, "n o p q"]) -> Float[Tensor, "n c h w"]:
        """Return Wᵀ·z."""
        conv, shape = self.conv, self.layer.shape
        z = z if self.mask is None else z * self.mask
        reached = [
            (out - 1) * s - 2 * p + d * (k - 1) + 1
            for out, s, p, d, k in zip(
                z.shape[2:],
                conv.stride,
                padding(conv),
                conv.dilation,
                conv.kernel_size,
                strict=True,
            )
        ]
        more = [size - covered for size, covered in zip(shape[1:], reached, strict=True)]
        return functional.conv_transpose2d(
            z,
            self.weight,
            None,
            conv.stride,
            padding(conv),
            more,
            1,
            conv.dilation,  # type: ignore[arg-type]
        )

    def normal(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return UᵀU·x."""
        by_gradient = x.flatten(2) @ self.kernel.T @ self.kernel
        return self.backward(self.forward(x)) + by_gradient.view_as(x)

    @cached_property
    def right(self) -> Float[Tensor, "1 c h w"]:
        """Uᵀv."""
        by_gradient = self.sights.T @ self.kernel
        z = self.out if self.mask is None else torch.where(self.mask, self.out, 0.0)
        return self.backward(z[None]) + by_gradient.view(1, *self.layer.shape)

    def matrix(self) -> Float[Tensor, "n n"]:
        """Return UᵀU.

        Every window of the convolution adds the same small matrix at its own pixels.
        """
        count, rows = self.unknowns, self.weight.flatten(1)
        dense = self.weight.new_zeros(count, count)
        together = rows.T @ rows
        for place, pixels in enumerate(self.windows.T):
            if self.mask is not None:
                active = rows[self.mask.flatten(1)[:, place]]
                together = active.T @ active
            inside = pixels >= 0
            at = pixels[inside]
            dense[at[:, None], at] += together[inside][:, inside]
        gram = self.kernel.T @ self.kernel
        for channel in range(self.layer.shape[0]):
            part = slice(channel * self.pixels, (channel + 1) * self.pixels)
            dense[part, part] += gram
        return dense

    @property
    def constraints(self) -> int:
        """How many rows U has."""
        num_outputs = self.out.numel() if self.mask is None else int(self.mask.sum())
        return num_outputs + self.grad_weight.numel()

    def rows(self) -> Float[Tensor, "rows n"]:
        """Return U."""
        weight, inside = self.weight.flatten(1), self.windows >= 0
        weight_rows = self.weight.new_zeros(*self.out.flatten(1).shape, self.unknowns)
        for place, pixels in enumerate(self.windows.T):
            weight_rows[:, place, pixels[inside[:, place]]] = weight[:, inside[:, place]]
        weight_rows = weight_rows.flatten(0, 1)
        if self.mask is not None:
            weight_rows = weight_rows[self.mask.flatten()]
        channels = [self.kernel] * self.layer.shape[0]
        return torch.cat([weight_rows, torch.block_diag(*channels)])

    @cached_property
    def windows(self) -> Int[Tensor, "entries places"]:
        """Which entry of the input each entry of each window is; −1 in the padding."""
        conv = self.conv
        numbers = torch.arange(1.0, self.unknowns + 1, dtype=torch.float64)
        unfolded = functional.unfold(
            numbers.view(1, *self.layer.shape),
            conv.kernel_size,
            conv.dilation,  # type: ignore[arg-type]
            padding(conv),
            conv.stride,  # type: ignore[arg-type]
        )
        return unfolded[0].long() - 1

    def residual(self, x: Float[Tensor, "c h w"]) -> float:
        """Return ‖Ux − v‖ / ‖v‖."""
        z = self.out if self.mask is None else torch.where(self.mask, self.out, 0.0)
        off = (self.forward(x[None])[0] - z).square().sum()
        off += (self.kernel @ x.flatten(1).T - self.sights).square().sum()
        size = z.square().sum() + self.sights.square().sum()
        return float((off / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt())


def padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Return how many zeros a convolution puts above and beside its input."""
    zeros = zeros_around(conv)
    assert zeros is not None  # a chain has no others
    return zeros[0], zeros[1]


@dataclass(frozen=True, eq=False)
class Solution:
    """The solutions of a system: one point, and the directions that it leaves open.

    Attributes:
        point: Of least norm around `centre`, (c, h, w).
        rank: Of the system.
        basis: An orthonormal basis of what it sees, (rank, n); None where it sees everything.
    """

    point: Float[Tensor, "c h w"]
    rank: int
    basis: Float[Tensor, "rank n"] | None

    def project(self, x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Return the nearest solution."""
        if self.basis is None:
            return self.point
        away = (x - self.point).flatten()
        return x - (self.basis.T @ (self.basis @ away)).view_as(x)


def solve(system: ConvSystem, *, centre: float = 0.0) -> Solution:
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
