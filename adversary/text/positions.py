"""The order of one text: rows of the token table are sums of rows of the position table.

Learned positions are added to token embeddings, so that p_i = ∂loss/∂x_i for the one text of a
client, and the gradient of token v is T_v = Σ p_i over the positions i where v stands. With no more
positions than dimensions the p_i are independent, and the least-squares solution of T = A·P is the
text, as zeros and ones. It holds for any model behind the two tables, and over any number of local
steps of SGD with momentum, which are the same sums on both sides.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Order:
    """One text, as two tables tell it.

    Attributes:
        ids: The token at each position, shape (length,).
        distance: Largest distance of an entry of A to a whole number: near 0 for one text.
        residual: Part of the token rows that no A explains, in [0, 1].
    """

    ids: Int[Tensor, " length"]
    distance: float
    residual: float


def order(
    tokens: Int[Tensor, " distinct"],
    token_rows: Float[Tensor, "distinct width"],
    position_rows: Float[Tensor, "length width"],
) -> Order:
    """Return the text whose token rows are sums of these position rows.

    Args:
        tokens: Ids of the token rows that moved.
        token_rows: Their rows of the update.
        position_rows: The position rows that moved, from the first on.

    Raises:
        ValueError: No row moved.
    """
    if not len(tokens) or not len(position_rows):
        got = f"{len(tokens)} rows of tokens and {len(position_rows)} of positions"
        raise ValueError(f"update: must move both tables, got {got}")
    rows, places = token_rows.double(), position_rows.double()
    # Positions differ in size by orders of magnitude; to each its own unit.
    units = places.norm(dim=1, keepdim=True)
    units = units.where(units > 0, 1.0)
    solved = torch.linalg.lstsq((places / units).T, rows.T, driver="gelsd").solution
    shares = solved / units  # (length, distinct)
    left = rows.T - places.T @ shares
    return Order(
        ids=tokens[shares.argmax(dim=1)],
        distance=float((shares - shares.round()).abs().max()),
        residual=float(left.norm() / rows.norm()),
    )
