"""One layer's system as an operator: products with U and Uᵀ, and least squares by them alone.

For the input x of a convolution U·x = (W·x, K(dz)·x), its output and its weight's gradient. Both
are products with the same windows of x, so that U·x costs one unfolding and two small products, and
O(fan·places) numbers for windows of `fan` entries at `places` places. Nothing of size n² is formed.

C. C. Paige, M. A. Saunders, "LSQR", ACM TOMS 1982: conjugate gradients on normal equations (CGLS).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fedsim.core import progress

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where a convolution looks.

    Attributes:
        shape: Of its input, (c, h, w).
        kernel: Size of a window.
        stride: From a window to the next.
        padding: Zeros on either side.
        dilation: From an entry of a window to the next.
    """

    shape: tuple[int, int, int]
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    def unfold(self, x: Float[Tensor, "c h w"]) -> Float[Tensor, "fan places"]:
        """Return the windows of an input."""
        return functional.unfold(x[None], self.kernel, self.dilation, self.padding, self.stride)[0]

    def fold(self, windows: Float[Tensor, "fan places"]) -> Float[Tensor, "c h w"]:
        """Return the sum of windows at their places: the transpose of `unfold`."""
        size = self.shape[1:]
        return functional.fold(
            windows[None], size, self.kernel, self.dilation, self.padding, self.stride
        )[0]


class Image(NamedTuple):
    """U·x, or what it is to be: the output, zero where it is not known, and the gradient."""

    out: Float[Tensor, "o places"]
    gradient: Float[Tensor, "o fan"]

    def size(self) -> float:
        """Return its squared length."""
        return float(self.out.square().sum() + self.gradient.square().sum())

    def single(self) -> "Image":
        """Return it in float32."""
        return Image(self.out.float(), self.gradient.float())

    def plus(self, factor: float, other: "Image") -> "Image":
        """Return self + factor·other."""
        return Image(self.out + factor * other.out, self.gradient + factor * other.gradient)


@dataclass(frozen=True, eq=False)
class Operator:
    """U of one layer; gradient constraints are as long as weight constraints on average.

    Attributes:
        windows: Where the convolution looks.
        weight: Its filters.
        grad_out: dL/dz, scaled.
        mask: Where z is known; None everywhere.
    """

    windows: Windows
    weight: Float[Tensor, "o fan"]
    grad_out: Float[Tensor, "o places"]
    mask: Bool[Tensor, "o places"] | None = None

    def forward(self, x: Float[Tensor, "c h w"]) -> Image:
        """Return U·x."""
        windows = self.windows.unfold(x)
        return Image(self._known(self.weight @ windows), self.grad_out @ windows.T)

    def adjoint(self, image: Image) -> Float[Tensor, "c h w"]:
        """Return Uᵀ·image."""
        windows = self.weight.T @ self._known(image.out)
        return self.windows.fold(windows.addmm_(image.gradient.T, self.grad_out))

    def single(self) -> "Operator":
        """Return it in float32."""
        return Operator(self.windows, self.weight.float(), self.grad_out.float(), self.mask)

    @cached_property
    def num_bytes(self) -> int:
        """How much memory a product takes: windows and their sum's, and a few images."""
        return operator_bytes(
            self.weight.shape[1], self.grad_out.shape[1], len(self.weight), self.weight.itemsize
        )

    def _known(self, out: Tensor) -> Tensor:
        return out if self.mask is None else out * self.mask


def operator_bytes(fan: int, places: int, channels: int, itemsize: int = 8) -> int:
    """Return how much memory a product with U or Uᵀ takes.

    Args:
        fan: Entries of a window.
        places: Windows.
        channels: Of the output.
        itemsize: Bytes of a number.
    """
    return itemsize * (2 * fan * places + 6 * channels * places)


class Least(NamedTuple):
    """The solution of a least-squares problem: the point, how many steps, whether they sufficed."""

    point: Float[Tensor, "c h w"]
    steps: int
    converged: bool


def least_squares(
    operator: Operator,
    target: Image,
    start: Float[Tensor, "c h w"],
    *,
    steps: int,
    tolerance: float,
    size: float | None = None,
) -> Least:
    """Minimise ‖U·x − target‖; where U leaves directions open, by the least change of the start.

    Args:
        operator: U.
        target: In its precision.
        start: In its precision.
        steps: Products with U and with Uᵀ, at most.
        tolerance: It is enough if ‖Uᵀ·(target − U·x)‖ falls to this share of `size`.
        size: ‖Uᵀ·target‖ if None.
    """
    if size is None:
        size = float(operator.adjoint(target).norm())
    x = start.clone()
    rest = target.plus(-1.0, operator.forward(x))
    slope = operator.adjoint(rest)
    p, square = slope.clone(), float(slope.square().sum())
    enough = (tolerance * size) ** 2
    for step in range(steps):
        progress.report(step, steps, "conjugate gradients")
        if square <= enough:
            return Least(x, step, converged=True)
        image = operator.forward(p)
        along = square / image.size()
        x.add_(p, alpha=along)
        rest = rest.plus(-along, image)
        slope = operator.adjoint(rest)
        before, square = square, float(slope.square().sum())
        p.mul_(square / before).add_(slope)
    return Least(x, steps, converged=square <= enough)
