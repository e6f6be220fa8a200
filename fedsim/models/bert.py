"""A small BERT: an encoder that classifies texts."""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from fedsim.core.catalog import Entry
from fedsim.core.form import PAD
from fedsim.models.layers import Shape
from fedsim.models.transformer import Body, Positions, check_sizes, initialise

Pooling = Literal["mean", "first"]


class BERT(Body):
    """An encoder with a LayerNorm after each part of a block; pads are looked at by no token.

    Args:
        length: The most tokens of a text.
        vocabulary: Number of token ids.
        num_classes: Number of classes.
        width: Of the embeddings.
        layers: Number of blocks.
        heads: Of each block.
        positions: A learned vector a position, or rotary ones.
        dropout: Share of what is dropped while training.
        pooling: What a text's class is read from: the mean over its tokens, or its first token.
    """

    def __init__(
        self,
        length: int,
        vocabulary: int,
        num_classes: int,
        *,
        width: int,
        layers: int,
        heads: int,
        positions: Positions,
        dropout: float,
        pooling: Pooling,
    ) -> None:
        super().__init__(
            length,
            vocabulary,
            width=width,
            layers=layers,
            heads=heads,
            positions=positions,
            dropout=dropout,
            first=False,
        )
        self.pooling = pooling
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, num_classes)

    def forward(self, ids: Tensor) -> Float[Tensor, "b classes"]:
        """Return the logits of each text's class."""
        x = self.dropout(self.norm(self.embedded(ids)))
        mask = (ids != PAD)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.dropout(self.pooler(self._pooled(x, ids != PAD)).tanh()))

    def _pooled(self, x: Float[Tensor, "b t d"], full: Bool[Tensor, "b t"]) -> Tensor:
        if self.pooling == "first":
            return x[:, 0]
        tokens = full.sum(dim=1, keepdim=True).clamp(min=1)  # a text may be pads alone
        return (x * full[:, :, None]).sum(dim=1) / tokens


def bert(
    input_shape: Shape,
    num_classes: int,
    vocabulary: int | None = None,
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    positions: Positions = "learned",
    dropout: float = 0.0,
    pooling: Pooling = "mean",
) -> nn.Module:
    """BERT: an encoder with LayerNorm last, GELU, weights from N(0, 0.02²); for classes of texts.

    The class is read from the mean over a text's tokens: from random weights, SGD then learns
    within rounds. Read from the first token, as in the paper, it hardly learns without pretraining.

    Source: Devlin, Chang, Lee, Toutanova, "BERT", NAACL 2019.
    """
    length, size = check_sizes(input_shape, vocabulary, width=width, layers=layers, heads=heads)
    model = BERT(
        length,
        size,
        num_classes,
        width=width,
        layers=layers,
        heads=heads,
        positions=positions,
        dropout=dropout,
        pooling=pooling,
    )
    initialise(model)
    return model


MODEL = Entry("bert", bert, paper="Devlin, Chang, Lee, Toutanova, NAACL 2019")
