"""What a convolution was given, from the rows of its gradient: a subspace method.

fedsim's own. The gradient of a convolution's weight is dz·Xᵀ: slopes at its places times the
windows of its input there. Of one example, with no more places than output channels, its rows span
the windows. Windows overlap, and few inputs have all of theirs in that span: often one, up to its
length. With a stride, shifts of it that bring in zeros from the border do, too.

Source of the idea: E. Moulines, P. Duhamel, J.-F. Cardoso, S. Mayrargue, "Subspace methods for the
blind identification of multichannel FIR filters", IEEE Transactions on Signal Processing 1995.

Behind a convolution, batch norm in training mode takes the mean off its slopes. Rows then span the
differences of windows. Behind pooling some places have no slope. What never arrives is seen in
slopes of random inputs, and left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from adversary.inversion.chain import zeros_around
from adversary.inversion.lanczos import top
from fedsim.core.errors import NotApplicable

NOISE = 0.1  # a span ends where singular values fall below this share of the one before
LEAST = 1e-6  # singular value of a span, of the largest
OUTSIDE = 1e-6  # squared share of windows outside their span, of inputs that fit
MOST = 4  # inputs that are no shifts of each other


@dataclass(frozen=True, eq=False)
class Windows:
    """A convolution whose gradient's rows may span its windows.

    Attributes:
        name: Of the convolution.
        module: It.
        shape: Of its input, (channels, height, width).
        reach: Orthonormal combinations of places that slopes reach, (places, reached).
    """

    name: str
    module: nn.Conv2d
    shape: tuple[int, int, int]
    reach: Float[Tensor, "places reached"]

    def of(self, inputs: Float[Tensor, " n"]) -> Float[Tensor, "fan places"]:
        """Return the windows of one input."""
        return functional.unfold(inputs.view(1, *self.shape), **self._geometry())[0]

    def back(self, windows: Float[Tensor, "fan places"]) -> Float[Tensor, " n"]:
        """Return the transpose of `of`."""
        size = self.shape[1:]
        return functional.fold(windows.unsqueeze(0), size, **self._geometry()).flatten()

    def _geometry(self) -> dict[str, tuple[int, ...]]:
        conv = self.module
        zeros = zeros_around(conv)
        assert zeros is not None
        return {
            "kernel_size": conv.kernel_size,
            "dilation": conv.dilation,
            "padding": tuple(zeros),
            "stride": conv.stride,
        }  # type: ignore[return-value]


def spans_windows(module: nn.Module, places: int) -> bool:
    """Return whether a gradient of this module can have the span of so many overlapping windows."""
    if not isinstance(module, nn.Conv2d) or module.groups != 1 or zeros_around(module) is None:
        return False
    overlaps = any(k > s for k, s in zip(module.kernel_size, module.stride, strict=True))
    return overlaps and 1 < places <= module.out_channels and places < module.weight[0].numel()


def inputs_in_span(
    windows: Windows, gradient: Float[Tensor, "out in height width"]
) -> Float[Tensor, "n inputs"]:
    """Return an orthonormal basis of the inputs that have all windows in the span of the rows.

    Args:
        windows: The convolution.
        gradient: Of its weight, one example's, float64.

    Raises:
        NotApplicable: The gradient has another rank than that of one example, as after noise, or
            more inputs fit than shifts of a few.
    """
    rank, reach = windows.reach.shape[1], windows.reach
    _, sizes, rows = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    noise = float(sizes[rank]) if rank < len(sizes) else 0.0
    weakest = float(sizes[rank - 1])
    if not weakest > max(LEAST * float(sizes[0]), noise / NOISE):
        raise NotApplicable(
            f"{windows.name}: its gradient must be of rank {rank}, as of one example, got singular "
            f"values {weakest:.1g} and {noise:.1g} of {float(sizes[0]):.1g} there"
        )
    span = rows[:rank]
    counts = windows.back(windows.of(torch.ones(prod(windows.shape), dtype=torch.float64)))
    scale = torch.where(counts > 0, counts.clamp(min=1e-9).rsqrt(), 0.0)

    def inside(v: Tensor) -> Tensor:
        """Return v less what is outside the span: (I − SᵀE S) v, whose largest eigenvalue is 1."""
        x = windows.of(v * scale) @ reach
        return v - scale * windows.back((x - span.T @ (span @ x)) @ reach.T)

    scaled = _constants(windows, counts)
    for fitting in range(MOST):
        start = (counts > 0).double()
        v, value = top(inside, start, outside_of=scaled, tolerance=OUTSIDE / 10)
        if 1 - value > OUTSIDE:
            if not fitting:
                raise NotApplicable(f"{windows.name}: an input must fit its gradient, got none")
            return _orthonormal(scaled * scale.unsqueeze(1))
        scaled = _orthonormal(torch.cat([scaled, _shifts(windows, v, scale, inside)], dim=1))
    raise NotApplicable(f"{windows.name}: one input must fit its gradient, got {MOST} and more")


def _constants(windows: Windows, counts: Tensor) -> Float[Tensor, "n constants"]:
    """Return the inputs, times the root of their counts, whose windows are all alike where seen.

    One channel is constant at every so many places as the stride is long. Without a mean of its
    slopes nothing of it arrives.
    """
    channels, height, width = windows.shape
    down, right = windows.module.stride
    alike = []
    for a, b in product(range(down), range(right)):
        at = torch.zeros(channels, height, width, dtype=torch.float64)
        at[0, a::down, b::right] = 1
        if float((windows.of(at.flatten()) @ windows.reach).abs().max()) < LEAST:
            alike += [at.roll(channel, 0).flatten() for channel in range(channels)]
    empty = torch.empty(len(counts), 0, dtype=torch.float64)
    columns = torch.stack(alike, dim=1) if alike else empty
    columns = columns * counts.sqrt().unsqueeze(1)
    columns = columns[:, columns.any(dim=0)]
    return columns / columns.norm(dim=0)


def _shifts(
    windows: Windows, v: Tensor, scale: Tensor, inside: Callable[[Tensor], Tensor]
) -> Float[Tensor, "n shifts"]:
    """Return an input and those of its shifts by whole strides that fit, too."""
    height, width = windows.shape[1:]
    down, right = windows.module.stride
    inputs = (v * scale).view(windows.shape)
    fitting = []
    for a, b in product(range(0, height, down), range(0, width, right)):
        shifted = torch.zeros_like(inputs)
        shifted[:, a:, b:] = inputs[:, : height - a, : width - b]
        part = torch.where(scale > 0, shifted.flatten() / scale.clamp(min=1e-9), 0.0)
        if not bool(part.any()):
            continue
        part = part / part.norm()
        if 1 - float(part @ inside(part)) < OUTSIDE:
            fitting.append(part)
    return torch.stack(fitting or [v], dim=1)


def _orthonormal(columns: Float[Tensor, "n k"]) -> Float[Tensor, "n rank"]:
    left, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > LEAST * sizes[0]]
