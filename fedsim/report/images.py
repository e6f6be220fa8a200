"""Pictures of examples as PNG files inside a page."""

import base64
import io

import torch
from torch import Tensor

SIDE, PERIOD = 96, 6  # pixels of a hatched picture, at least half as many, and of its stripes
OPEN = (0.84, 0.37, 0.0)  # their colour


def picture(image: Tensor, open_: Tensor | None = None) -> str:
    """Return an image (channels, height, width) in [0, 1] as the data URI of a PNG file.

    One channel is grey and three are colour; of any other number the mean is shown. Pixels are
    hatched by the largest share `open_`, of the same shape, of their channels: at 0 not at all.
    """
    from PIL import Image

    if open_ is not None and bool(open_.any()):
        image = _hatched(image, open_.amax(dim=0).to(image.dtype))

    if len(image) not in (1, 3):
        image = image.mean(dim=0, keepdim=True)
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if len(image) == 1 else pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _hatched(image: Tensor, open_: Tensor) -> Tensor:
    """Return a larger colour image with stripes over some of its pixels."""
    image = image if len(image) in (1, 3) else image.mean(dim=0, keepdim=True)
    times = max(1, SIDE // max(open_.shape))
    image, open_ = (
        it.repeat_interleave(times, dim=-2).repeat_interleave(times, dim=-1)
        for it in (image.expand(3, *open_.shape), open_)
    )
    rows, columns = (torch.arange(size) for size in open_.shape)
    stripes = (rows[:, None] + columns) % PERIOD < PERIOD // 3
    colour = torch.tensor(OPEN, dtype=image.dtype)[:, None, None]
    weight = open_ * stripes
    return weight * colour + (1 - weight) * image.clamp(0, 1)
