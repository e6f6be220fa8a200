"""A small BERT: an encoder that classifies texts by their first token."""

from jaxtyping import Float
from torch import Tensor, nn

from fedsim.core.catalog import Entry
from fedsim.core.form import PAD
from fedsim.models.layers import Shape
from fedsim.models.transformer import Body, Positions, check_sizes, initialise


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
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, num_classes)

    def forward(self, ids: Tensor) -> Float[Tensor, "b classes"]:
        """Return the logits of each text's class, read at its first token."""
        x = self.dropout(self.norm(self.embedded(ids)))
        mask = (ids != PAD)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.dropout(self.pooler(x[:, 0]).tanh()))


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
) -> nn.Module:
    """BERT: an encoder with LayerNorm last, GELU, weights from N(0, 0.02²); for classes of texts.

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
    )
    initialise(model)
    return model


MODEL = Entry("bert", bert, paper="Devlin, Chang, Lee, Toutanova, NAACL 2019")
