"""A small GPT: a decoder that is trained on the next token."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core.catalog import Entry
from fedsim.models.layers import Shape
from fedsim.models.transformer import Body, Positions, check_sizes, initialise


class GPT(Body):
    """A decoder with a LayerNorm before each part of a block, and a head without bias.

    Args:
        length: The most tokens of a text.
        vocabulary: Number of token ids.
        width: Of the embeddings.
        layers: Number of blocks.
        heads: Of each block.
        positions: A learned vector a position, or rotary ones.
        dropout: Share of what is dropped while training.
        tie: Whether the head's weight is the token embedding.
    """

    def __init__(
        self,
        length: int,
        vocabulary: int,
        *,
        width: int,
        layers: int,
        heads: int,
        positions: Positions,
        dropout: float,
        tie: bool,
    ) -> None:
        super().__init__(
            length,
            vocabulary,
            width=width,
            layers=layers,
            heads=heads,
            positions=positions,
            dropout=dropout,
            first=True,
        )
        self.head = None if tie else nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Float[Tensor, "b t vocabulary"]:
        """Return the logits of the next token at each position."""
        x, count = self.dropout(self.embedded(ids)), ids.shape[1]
        mask = torch.ones(count, count, dtype=torch.bool).tril()
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return functional.linear(x, self.tokens.weight) if self.head is None else self.head(x)


def gpt(
    input_shape: Shape,
    num_classes: int,  # noqa: ARG001 (of a language model, the vocabulary)
    vocabulary: int | None = None,
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    positions: Positions = "learned",
    tie: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """GPT: a decoder with LayerNorm first, GELU, weights from N(0, 0.02²); for next tokens.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """
    length, size = check_sizes(input_shape, vocabulary, width=width, layers=layers, heads=heads)
    model = GPT(
        length,
        size,
        width=width,
        layers=layers,
        heads=heads,
        positions=positions,
        dropout=dropout,
        tie=tie,
    )
    initialise(model)
    return model


MODEL = Entry("gpt", gpt, paper="Radford et al., 2019")
