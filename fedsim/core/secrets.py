"""What a secret is about: what a game leaves open, and how an attribute stands in the inputs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rules:
    """What a game leaves open.

    Attributes:
        batch: Records per update, at least 1.
        shares: P(a = 1) under each secret of the distributional game.
        count: Records with the property, in the game of properties.
        user_share: Share of the user's records in a batch, in the game of users.
        users: How many there are.
    """

    batch: int
    shares: tuple[float, ...] = (0.3, 0.7)
    count: int = 1
    user_share: float = 1.0
    users: int = 2


@dataclass(frozen=True)
class Encoding:
    """How a sensitive attribute stands in a record's inputs.

    Attributes:
        columns: Which of the input's features, shape (c,).
        absent, present: Their values for a = 0 and a = 1, shape (c,).
    """

    columns: Int[Tensor, " c"]
    absent: Float[Tensor, " c"]
    present: Float[Tensor, " c"]

    def put(self, inputs: Float[Tensor, "n d"], secret: Int[Tensor, " n"]) -> Tensor:
        """Return copies of records with the attribute set."""
        inputs = inputs.clone()
        inputs[:, self.columns] = torch.where(secret[:, None] == 1, self.present, self.absent)
        return inputs
