"""How alike two pictures are: PSNR and SSIM, for many at once.

PSNR is −10 log₁₀ of the mean squared error in units of the data's range: of pixels in [0, 1], never
of standardised tensors and never with another range than that of the data (a mean squared error on
[0, 1] with a range of 255 reads 48.13 dB too high).
SSIM: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error
Visibility to Structural Similarity", IEEE Transactions on Image Processing 2004, Eq. 13.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

CAP = 350.0  # dB; two pictures that are equal to the bit have this instead of infinity
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


def psnr(
    a: Shaped[Tensor, "n *shape"], b: Shaped[Tensor, "n *shape"], data_range: float
) -> Float[Tensor, " n"]:
    """Return the peak signal-to-noise ratio of each pair in dB, float64.

    Args:
        a: Pictures, or records of any shape.
        b: What each is compared with.
        data_range: Largest minus smallest value that the data can have: 1 for pixels in [0, 1],
            255 for bytes.

    Returns:
        At most 350, which equal pairs have.

    Raises:
        ValueError: The shapes differ.
    """
    _check(a, b)
    error = (a.double() - b.double()).flatten(1).square().mean(dim=1) / data_range**2
    return -10 * torch.log10(error.clamp(min=10 ** (-CAP / 10)))


def ssim(
    a: Shaped[Tensor, "n channels height width"],
    b: Shaped[Tensor, "n channels height width"],
    data_range: float = 1.0,
) -> Float[Tensor, " n"]:
    """Return the mean structural similarity of each pair, float64.

    A Gaussian window of 11×11 and σ = 1.5 is moved over the picture as far as it fits inside;
    pictures that are smaller in a direction have the largest odd window that fits them. Channels
    are compared by themselves, and their mean is taken.

    Args:
        a: Pictures.
        b: What each is compared with.
        data_range: Largest minus smallest value that a pixel can have.

    Returns:
        In [−1, 1]; 1 exactly for equal pairs.

    Raises:
        ValueError: The shapes differ.
    """
    _check(a, b)
    window = min(WINDOW, *(side - (side + 1) % 2 for side in a.shape[-2:]))
    place = torch.arange(window, dtype=torch.float64) - window // 2
    weight = (-place.square() / (2 * SIGMA**2)).exp()
    weight /= weight.sum()

    def local(values: Tensor) -> Tensor:
        flat = values.reshape(-1, 1, *values.shape[-2:])
        rows = functional.conv2d(flat, weight.view(1, 1, -1, 1))
        return functional.conv2d(rows, weight.view(1, 1, 1, -1)).view(len(values), -1)

    x, y = a.double(), b.double()
    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    alike = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (alike * (2 * covariance + c2) / (var_x + var_y + c2)).mean(dim=1)


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"b: must have the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
