"""What the transformers of this room share: attention, blocks, initial weights."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fedsim.models.layers import Shape

Positions = Literal["learned", "rotary"]
SPREAD = 0.02  # standard deviation of initial weights, as in GPT-2 and BERT
TURN = 10_000.0  # wavelengths of rotary positions grow up to 2π times this


class Attention(nn.Module):
    """Multi-head attention with a linear map each for queries, keys, values and the output.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; rotary positions as in Su et
    al., "RoFormer", 2021, which turn queries and keys by their place.

    Args:
        width: Of its inputs and outputs.
        heads: Number of heads.
        length: Number of positions, for rotary ones; None without.
    """

    def __init__(self, width: int, heads: int, length: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.turns: Tensor | None
        self.register_buffer(
            "turns", None if length is None else _turns(length, width // heads), persistent=False
        )

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "..."]) -> Tensor:
        """Return the values that each position attends to.

        Args:
            x: Inputs.
            mask: Which keys a query looks at; broadcast to (b, heads, queries, keys).
        """
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (b, heads, t, d / heads)
            for layer in (self.query, self.key, self.value)
        )
        if self.turns is not None:
            q, k = (_turned(each, self.turns[:, : x.shape[1]]) for each in (q, k))
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        # Not −∞: a text of pads alone would give NaN.
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=3)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a perceptron, each with a residual and a LayerNorm before or after it.

    Args:
        width: Of its inputs and outputs.
        heads: Number of heads.
        length: Number of positions, for rotary ones; None without.
        dropout: Share of what each of the two adds that is dropped while training.
        first: Whether the LayerNorms come first (GPT-2), or after the sum (BERT).
    """

    def __init__(
        self, width: int, heads: int, length: int | None, dropout: float, *, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, length)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "..."]) -> Tensor:
        """Return the outputs of each position; `mask` as in `Attention`."""
        if self.first:
            x = x + self.dropout(self.attention(self.norm1(x), mask))
            return x + self.dropout(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attention(x, mask)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class Body(nn.Module):
    """The token and position embeddings and the blocks of both models.

    Args:
        length: The most tokens of a text.
        vocabulary: Number of token ids.
        width: Of the embeddings.
        layers: Number of blocks.
        heads: Of each block.
        positions: A learned vector a position, or rotary ones.
        dropout: As in `Block`.
        first: As in `Block`.
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
        first: bool,
    ) -> None:
        super().__init__()
        self.length = length
        self.tokens = nn.Embedding(vocabulary, width)
        rotary = positions == "rotary"
        self.positions = None if rotary else nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        turns = length if rotary else None
        self.blocks = nn.ModuleList(
            Block(width, heads, turns, dropout, first=first) for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def embedded(self, ids: Tensor) -> Float[Tensor, "b t d"]:
        """Return the embedding of each token at its position.

        Raises:
            ValueError: A text is longer than the model's positions.
        """
        count = ids.shape[1]
        if count > self.length:
            raise ValueError(f"inputs: must be at most {self.length} tokens a text, got {count}")
        x = self.tokens(ids)
        return x if self.positions is None else x + self.positions(torch.arange(count))


def check_sizes(
    input_shape: Shape, vocabulary: int | None, *, width: int, layers: int, heads: int
) -> tuple[int, int]:
    """Return the length of a text and the number of token ids.

    Raises:
        ValueError: The inputs are no tokens, or a size of the model does not fit the others.
    """
    if vocabulary is None or len(input_shape) != 1:
        raise ValueError(f"inputs: must be token ids of texts, got numbers of shape {input_shape}")
    if min(width, layers, heads) < 1 or width % heads or width // heads % 2:
        raise ValueError(
            "width: must be an even multiple of heads, with at least one layer, "
            f"got width = {width}, layers = {layers}, heads = {heads}"
        )
    return input_shape[0], vocabulary


def initialise(model: nn.Module) -> None:
    """Draw the weights of linear maps and embeddings from N(0, 0.02²), with biases of 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=SPREAD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _turns(length: int, size: int) -> Float[Tensor, "2 length size"]:
    """Return the cosine and sine by which each position turns each pair of features."""
    rates = TURN ** (-torch.arange(0, size, 2) / size)
    angles = torch.outer(torch.arange(length).float(), rates).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()])


def _turned(x: Float[Tensor, "b h t d"], turns: Float[Tensor, "2 t d"]) -> Tensor:
    left, right = x.chunk(2, dim=3)
    return x * turns[0] + torch.cat([-right, left], dim=3) * turns[1]
