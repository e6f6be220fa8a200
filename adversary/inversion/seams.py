"""Seams: how far pictures jump where two patches meet.

A. Hatamizadeh, H. Yin, H. Roth, W. Li, J. Kautz, D. Xu, P. Molchanov, "GradViT: Gradient Inversion
of Vision Transformers", CVPR 2022, Eq. 6: the patch prior.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

SOFT = 1e-2  # below which a jump is squared rather than its length taken


class Seams:
    """Pictures → the mean jump between neighbours of different patches.

    Args:
        shape: Of one picture.
        pixels: Which numbers of a picture each patch has.
    """

    def __init__(self, shape: tuple[int, ...], pixels: Int[Tensor, "patches size"]) -> None:
        patch = torch.full((torch.Size(shape).numel(),), -1)
        patch[pixels] = torch.arange(len(pixels)).unsqueeze(1)
        at = patch.view(shape)
        self.down = at[..., 1:, :] != at[..., :-1, :]
        self.right = at[..., 1:] != at[..., :-1]

    def of(self, images: Float[Tensor, "*rows c h w"]) -> Float[Tensor, "*rows"]:
        """Return √(jump² + SOFT²) − SOFT, down and to the right, averaged over seams."""
        down = (images[..., 1:, :] - images[..., :-1, :])[..., self.down]
        right = (images[..., 1:] - images[..., :-1])[..., self.right]
        total = images.new_zeros(images.shape[:-3])
        for jumps in (down, right):
            if jumps.shape[-1]:
                total = total + ((jumps.square() + SOFT**2).sqrt() - SOFT).mean(dim=-1)
        return total
