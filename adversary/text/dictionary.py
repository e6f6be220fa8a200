"""What a token model's first linear maps take for every token at every position."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adversary.text.sites import Site, inputs_at
from fedsim.core.errors import NotApplicable

CHUNK = 65536  # vectors that are computed together
MOST = 2**27  # entries: 1 GiB


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Vectors of (token, position) pairs.

    Attributes:
        tokens: Ids, ascending.
        vectors: What the layer takes, float64; of a model whose first layer sees no positions
            (rotary ones) there is a single position.
    """

    tokens: Int[Tensor, " tokens"]
    vectors: Float[Tensor, "tokens positions width"]

    @property
    def positions(self) -> int:
        """How many positions there are; 1 where the layer sees none."""
        return self.vectors.shape[1]

    def pairs(self, places: Int[Tensor, " n"]) -> Int[Tensor, "n 2"]:
        """Return the (token, position) pairs of rows of the flattened vectors."""
        return torch.stack([self.tokens[places // self.positions], places % self.positions], dim=1)


def dictionary(
    model: nn.Module, site: Site, tokens: Int[Tensor, " tokens"], length: int
) -> Dictionary:
    """Return what a site takes for each of some tokens at each position.

    Args:
        model: In evaluation mode, with the weights sent.
        site: One whose input depends on the token and the position alone.
        tokens: Ids.
        length: Number of positions.

    Raises:
        NotApplicable: It would not fit into memory.
    """
    if (entries := len(tokens) * length * site.width) > MOST:
        raise NotApplicable(
            f"dictionary: must have at most {MOST} entries of tokens × positions × width, "
            f"got {entries}"
        )
    rows = max(1, CHUNK // length)
    parts = [
        inputs_at(model, site, part[:, None].expand(-1, length).contiguous())
        for part in tokens.split(rows)
    ]
    vectors = torch.cat(parts).double()
    if length > 1 and _same_everywhere(vectors):
        vectors = vectors[:, :1]
    return Dictionary(tokens, vectors)


def _same_everywhere(vectors: Float[Tensor, "tokens positions width"]) -> bool:
    away = (vectors - vectors[:, :1]).abs().max()
    return bool(away <= 1e-6 * vectors.abs().max())
