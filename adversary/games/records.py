"""The records that one party of a game draws from."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from fedsim.core.secrets import Encoding


@dataclass(frozen=True)
class Pool:
    """Records that one party draws from.

    Attributes:
        inputs: Shape (n, *shape).
        labels: Shape (n,); of a language model the next tokens, shape (n, T).
        marks: 1 for a record with the attribute or property; in the game of users, the user.
        encoding: How to set the attribute; None if it is no input.
        telling: Input features that say the mark, in places of a flat record.
        weights: How often each record is drawn, up to a constant, shape (n,); None for evenly.
    """

    inputs: Tensor
    labels: Int[Tensor, "n *targets"]
    marks: Int[Tensor, " n"]
    encoding: Encoding | None = None
    weights: Tensor | None = None
    telling: frozenset[int] = frozenset()

    @property
    def prior(self) -> float:
        """The share of records with the attribute."""
        return float(self.marks.double().mean())

    def drawn(self, count: int, generator: Generator, *, mark: int | None = None) -> Tensor:
        """Return places of random records, or of random ones with a mark; with repetition.

        Raises:
            ValueError: No record has the mark.
        """
        places = torch.arange(len(self.marks))
        places = places if mark is None else places[self.marks == mark]
        if not len(places):
            raise ValueError(
                "pool: must hold records with and without the property, got none of one"
            )
        if self.weights is None:
            return places[torch.randint(len(places), (count,), generator=generator)]
        if not count:
            return places[:0]
        chosen = torch.multinomial(self.weights[places], count, True, generator=generator)
        return places[chosen]

    def batches(self, count: int, size: int, generator: Generator) -> Int[Tensor, "n size"]:
        """Return places of random records for as many batches."""
        return self.drawn(count * size, generator).view(count, size)
