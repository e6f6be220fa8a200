"""The linear system of one layer: its input from its output and its weight's gradient.

J. Zhu, M. Blaschko, "R-GAP: recursive gradient attack on privacy", ICLR 2021; C. Chen,
N. D. F. Campbell, "Analysing training-data leakage from gradients through linear systems and
gradient matching", BMVC 2022.

For one example, a convolution's input x obeys z = W·x (weight constraints) and dL/dW = K(dL/dz)·x
(gradient constraints), where pixels of the padding are known to be zero and are left out. The tall
matrix [W; K] is never formed: K acts on every input channel alike, so that
KᵀK = I ⊗ K₀ᵀK₀ for one small K₀, and W only acts through convolutions.

`adversary.inversion.solutions` solves it.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from adversary.inversion.chain import Layer, zeros_around
from adversary.inversion.operators import Image, Operator, Windows

DENSE = 6500  # unknowns up to which a system is solved densely,
DENSE_ROWS = 4000  # and constraints where these are fewer


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
    def is_dense(self) -> bool:
        """Whether it is solved densely; see `adversary.inversion.solutions.solve`."""
        return solved_densely(self.constraints, self.unknowns)

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

    @cached_property
    def operator(self) -> Operator:
        """U for products, with gradient constraints as long as weight constraints."""
        conv, shape = self.conv, self.layer.shape
        windows = Windows(
            shape=(shape[0], shape[1], shape[2]),
            kernel=(conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            padding=padding(conv),
            dilation=(conv.dilation[0], conv.dilation[1]),
        )
        mask = None if self.mask is None else self.mask.flatten(1)
        grad_out = self.grad_out.flatten(1) * self._length
        return Operator(windows, self.weight.flatten(1), grad_out, mask)

    @cached_property
    def target(self) -> Image:
        """What the operator's image of the input is."""
        z = self.out if self.mask is None else torch.where(self.mask, self.out, 0.0)
        return Image(z.flatten(1), self.grad_weight.flatten(1) * self._length)

    @cached_property
    def _length(self) -> float:
        of_weight = self.weight.flatten(1).square().sum(dim=1).mean()
        of_gradient = self.grad_out.flatten(1).square().sum(dim=1).mean()
        return float((of_weight / of_gradient).sqrt()) if float(of_gradient) > 0 else 0.0

    def residual(self, x: Float[Tensor, "c h w"]) -> float:
        """Return ‖Ux − v‖ / ‖v‖."""
        if not self.is_dense:
            rest = self.target.plus(-1.0, self.operator.forward(x))
            return (rest.size() / max(self.target.size(), torch.finfo(x.dtype).tiny)) ** 0.5
        z = self.out if self.mask is None else torch.where(self.mask, self.out, 0.0)
        off = (self.forward(x[None])[0] - z).square().sum()
        off += (self.kernel @ x.flatten(1).T - self.sights).square().sum()
        size = z.square().sum() + self.sights.square().sum()
        return float((off / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt())


def solved_densely(constraints: int, unknowns: int) -> bool:
    """Return whether a system of a size is solved densely."""
    if constraints >= unknowns:
        return unknowns <= DENSE
    return constraints <= DENSE_ROWS and constraints * unknowns <= DENSE**2


def padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Return how many zeros a convolution puts above and beside its input."""
    zeros = zeros_around(conv)
    assert zeros is not None  # a chain has no others
    return zeros[0], zeros[1]
