"""LPIPS: how alike two pictures look to AlexNet, with weights fitted to people's judgements.

R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The Unreasonable Effectiveness of Deep
Features as a Perceptual Metric", CVPR 2018. The package `lpips` (extra `lpips`) has the weights of
its linear layers alone; those of AlexNet are torchvision's, 233 MB, and are not downloaded here.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core.errors import ConfigError

PACKAGE = "lpips"
LEAST = 64  # pixels of a side, below which AlexNet's last layers see nothing
FETCH = "python -c 'import torchvision; torchvision.models.alexnet(weights=\"DEFAULT\")'"


def check() -> None:
    """Refuse LPIPS where its package or AlexNet's weights are lacking.

    Raises:
        ConfigError: They are.
    """
    if find_spec(PACKAGE) is None:
        raise ConfigError(
            "grading.lpips: needs the package lpips, got none; run: pip install 'fedsim[lpips]'"
        )
    if not (path := weights_file()).is_file():
        raise ConfigError(
            f"grading.lpips: needs AlexNet's weights in {path}, got no file; run: {FETCH}"
        )


def weights_file() -> Path:
    """Return where torchvision keeps AlexNet's weights."""
    from torchvision.models import AlexNet_Weights

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return folder / Path(AlexNet_Weights.IMAGENET1K_V1.url).name


def network() -> nn.Module:
    """Return the network that gives distances.

    Raises:
        ConfigError: Its package or weights are lacking.
    """
    check()
    import lpips  # pyright: ignore[reportMissingImports]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of the way in which lpips calls it
        return lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(requires_grad=False)


def lpips_similarity(
    a: Shaped[Tensor, "n channels height width"],
    b: Shaped[Tensor, "n channels height width"],
    of: nn.Module,
) -> Float[Tensor, " n"]:
    """Return 1 − LPIPS of each pair, float64; 1 for equal pairs.

    Args:
        a: Pictures, pixels in [0, 1]; of other than three channels the mean is taken. Sides below
            64 pixels are enlarged to that, bilinearly.
        b: What each is compared with.
        of: The network (`network`).

    Raises:
        ValueError: The shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"b: must have the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
    with torch.no_grad():
        return 1 - of(_prepared(a), _prepared(b)).double().flatten()


def _prepared(pictures: Tensor) -> Tensor:
    """Return pictures in colour, in [−1, 1]."""
    values = pictures.float()
    if values.shape[1] != 3:
        values = values.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    times = max(1.0, LEAST / min(values.shape[-2:]))
    if times > 1:
        size = [round(side * times) for side in values.shape[-2:]]
        values = functional.interpolate(values, size, mode="bilinear", align_corners=False)
    return 2 * values - 1
