"""What a model takes and gives."""

from dataclasses import dataclass
from typing import Literal

import torch

PAD = 0  # the token id that fills up a text on its right
IGNORED = -100  # the target that stands for none, as in `torch.nn.functional.cross_entropy`

Kind = Literal["values", "tokens", "language"]
"""What a model takes and gives: numbers or token ids for one class each, or ids for next tokens."""
KINDS: dict[Kind, str] = {
    "values": "numbers",
    "tokens": "texts with a class each",
    "language": "texts with a next token at each position",
}


def kind_of(vocabulary: object | None, *, per_token: bool) -> Kind:
    """Return the kind of a model by its inputs and its outputs."""
    if vocabulary is None:
        return "values"
    return "language" if per_token else "tokens"


@dataclass(frozen=True)
class Form:
    """What a model takes and gives.

    Attributes:
        shape: Of one example.
        num_classes: How many logits; of a language model, at each position.
        dtype: Of the inputs: int64 for token ids.
        vocabulary: How many token ids there are, pads included; None where inputs are no tokens.
        per_token: Whether there is a target at each position, the next token.
    """

    shape: tuple[int, ...]
    num_classes: int
    dtype: torch.dtype = torch.float32
    vocabulary: int | None = None
    per_token: bool = False

    @property
    def kind(self) -> Kind:
        """What it takes and gives in one word."""
        return kind_of(self.vocabulary, per_token=self.per_token)

    @property
    def binary(self) -> bool:
        """Whether a model may give the second class's logit alone."""
        return self.num_classes == 2 and not self.per_token

    def logits(self, count: int) -> tuple[int, ...]:
        """Return the shape of the logits of so many examples; the classes are its second axis."""
        return (count, self.num_classes, *(self.shape if self.per_token else ()))
