"""ViT: a transformer on patches of a picture."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedsim.core.catalog import Entry
from fedsim.models.layers import Shape, image_shape
from fedsim.models.transformer import SPREAD, Block, initialise


class ViT(nn.Module):
    """Patches, a class token, learned positions, blocks, and a head on the class token.

    Args:
        shape: Of a picture: channels, height, width.
        num_classes: Number of labels.
        patch: Pixels of a patch's side.
        width: Of the embeddings.
        layers: Number of blocks.
        heads: Of each block.
        first: Whether LayerNorms come first.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        *,
        patch: int,
        width: int,
        layers: int,
        heads: int,
        first: bool,
    ) -> None:
        super().__init__()
        channels, high, wide = shape
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(SPREAD * torch.randn(1, 1, width))
        count = 1 + (high // patch) * (wide // patch)
        self.positions = nn.Parameter(SPREAD * torch.randn(1, count, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, None, 0.0, first=first) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, -1), patches], dim=1) + self.positions
        everywhere = torch.ones((), dtype=torch.bool)
        for block in self.blocks:
            x = block(x, everywhere)
        return self.head(self.norm(x[:, 0]))


def vit(
    input_shape: Shape,
    num_classes: int,
    *,
    patch: int = 4,
    width: int = 192,
    layers: int = 12,
    heads: int = 3,
    first: bool = True,
) -> nn.Module:
    """ViT, by default ViT-tiny on patches of 4×4 pixels; 5.4M parameters on CIFAR-10.

    LayerNorm first (`first = false`: after each sum), GELU, a class token, learned positions.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; sizes of Touvron et al.,
    "Training data-efficient image transformers", ICML 2021.

    Raises:
        ValueError: Sizes do not go together, or patches do not cover the picture.
    """
    shape = image_shape(input_shape, "vit", at_least=1)
    if min(width, layers, heads) < 1 or width % heads:
        raise ValueError(
            "width: must be a multiple of heads, with at least one layer, "
            f"got width = {width}, layers = {layers}, heads = {heads}"
        )
    if patch < 1 or shape[1] % patch or shape[2] % patch:
        raise ValueError(f"patch: must divide {shape[1]} and {shape[2]}, got {patch}")
    model = ViT(
        shape, num_classes, patch=patch, width=width, layers=layers, heads=heads, first=first
    )
    initialise(model)
    return model


MODEL = Entry("vit", vit, paper="Dosovitskiy et al., ICLR 2021")
