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

from adversary.inversion.chain import Layer

REFINED = 4  # steps of iterative refinement
NOTHING = 1e-11  # eigenvalues below this share of the largest are none


@dataclass(frozen=True, eq=False)
class ConvSystem:
    """U·x = v for the input x of a convolution, for one example, float64.

    Attributes:
        layer: The convolution.
        weight: Its weight, (C_out, C_in, k, k).
        out: z without bias, (C_out, h', w').
        known: Where z is known; None everywhere.
        grad_out: dL/dz, (C_out, h', w').
        grad_weight: dL/dW.
    """

    layer: Layer
    weight: Float[Tensor, "o c k l"]
    out: Float[Tensor, "o h w"]
    grad_out: Float[Tensor, "o h w"]
    grad_weight: Float[Tensor, "o c k l"]
    known: Bool[Tensor, "o h w"] | None = None

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
        there, here = self.weight.square().mean(), self.grad_out.square().mean()
        return float((there / here).sqrt()) if float(here) > 0 else 0.0

    @cached_property
    def sights(self) -> Float[Tensor, "rows channels"]:
        """What K₀ sees of each channel: the scaled gradient of the weight."""
        return self.grad_weight.permute(0, 2, 3, 1).flatten(0, 2) * self.scale

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o p q"]:
        """Return W·x, zero where z is not known."""
        conv = self.conv
        z = functional.conv2d(x, self.weight, None, conv.stride, conv.padding, conv.dilation)  # type: ignore[arg-type]
        return z if self.known is None else z * self.known

    def backward(self, z: Float[Tensor, "n o p q"]) -> Float[Tensor, "n c h w"]:
        """Return Wᵀ·z."""
        conv, shape = self.conv, self.layer.shape
        z = z if self.known is None else z * self.known
        reached = [
            (out - 1) * s - 2 * p + d * (k - 1) + 1
            for out, s, p, d, k in zip(
                z.shape[2:], conv.stride, padding(conv), conv.dilation, conv.kernel_size,
                strict=True,
            )
        ]  # fmt: skip
        more = [size - there for size, there in zip(shape[1:], reached, strict=True)]
        return functional.conv_transpose2d(
            z, self.weight, None, conv.stride, conv.padding, more, 1, conv.dilation  # type: ignore[arg-type]
        )  # fmt: skip

    def normal(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return UᵀU·x."""
        seen = x.flatten(2) @ self.kernel.T @ self.kernel
        return self.backward(self.forward(x)) + seen.view_as(x)

    @cached_property
    def right(self) -> Float[Tensor, "1 c h w"]:
        """Uᵀv."""
        seen = self.sights.T @ self.kernel
        z = self.out if self.known is None else torch.where(self.known, self.out, 0.0)
        return self.backward(z[None]) + seen.view(1, *self.layer.shape)

    def matrix(self) -> Float[Tensor, "n n"]:
        """Return UᵀU.

        Every window of the convolution adds the same small matrix at its own pixels.
        """
        count, rows = self.unknowns, self.weight.flatten(1)
        dense = self.weight.new_zeros(count, count)
        together = rows.T @ rows
        for place, pixels in enumerate(self.windows.T):
            if self.known is not None:
                there = rows[self.known.flatten(1)[:, place]]
                together = there.T @ there
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
        there = self.out.numel() if self.known is None else int(self.known.sum())
        return there + self.grad_weight.numel()

    def rows(self) -> Float[Tensor, "rows n"]:
        """Return U."""
        weight, inside = self.weight.flatten(1), self.windows >= 0
        seen = self.weight.new_zeros(*self.out.flatten(1).shape, self.unknowns)
        for place, pixels in enumerate(self.windows.T):
            seen[:, place, pixels[inside[:, place]]] = weight[:, inside[:, place]]
        seen = seen.flatten(0, 1)
        if self.known is not None:
            seen = seen[self.known.flatten()]
        channels = [self.kernel] * self.layer.shape[0]
        return torch.cat([seen, torch.block_diag(*channels)])

    @cached_property
    def windows(self) -> Int[Tensor, "entries places"]:
        """Which entry of the input each entry of each window is; −1 in the padding."""
        conv = self.conv
        numbers = torch.arange(1.0, self.unknowns + 1, dtype=torch.float64)
        seen = functional.unfold(
            numbers.view(1, *self.layer.shape), conv.kernel_size, conv.dilation,  # type: ignore[arg-type]
            conv.padding, conv.stride,  # type: ignore[arg-type]
        )  # fmt: skip
        return seen[0].long() - 1

    def residual(self, x: Float[Tensor, "c h w"]) -> float:
        """Return ‖Ux − v‖ / ‖v‖."""
        z = self.out if self.known is None else torch.where(self.known, self.out, 0.0)
        off = (self.forward(x[None])[0] - z).square().sum()
        off += (self.kernel @ x.flatten(1).T - self.sights).square().sum()
        size = z.square().sum() + self.sights.square().sum()
        return float((off / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt())


def padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Return how many zeros a convolution puts above and beside its input."""
    assert not isinstance(conv.padding, str)
    return conv.padding[0], conv.padding[1]


@dataclass(frozen=True, eq=False)
class Solution:
    """The solutions of a system: one point, and the directions that it leaves open.

    Attributes:
        point: Of least norm around `centre`, (c, h, w).
        rank: Of the system.
        seen: An orthonormal basis of what it sees, (rank, n); None where it sees everything.
    """

    point: Float[Tensor, "c h w"]
    rank: int
    seen: Float[Tensor, "rank n"] | None

    def project(self, x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Return the nearest solution."""
        if self.seen is None:
            return self.point
        away = (x - self.point).flatten()
        return x - (self.seen.T @ (self.seen @ away)).view_as(x)


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
        found = _full(system, dense)
        if found is not None:
            return Solution(found, system.unknowns, None)
        values, vectors = torch.linalg.eigh(dense)
        there = values > NOTHING * values[-1]
        values, seen = values[there], vectors[:, there].T.contiguous()
    else:
        rows = system.rows()
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        there = values > NOTHING * values[-1]
        values = values[there]
        seen = (vectors[:, there] / values.sqrt()).T @ rows
    point = torch.full(system.layer.shape, centre, dtype=seen.dtype)
    for _ in range(REFINED):
        off = (system.right - system.normal(point[None])).flatten()
        point = point + (seen.T @ ((seen @ off) / values)).view_as(point)
    return Solution(point, int(there.sum()), seen)


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
