"""What a model takes and gives."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Form:
    """What a model takes and gives.

    Attributes:
        shape: Of one example.
        num_classes: How many logits.
        dtype: Of the inputs: int64 for token ids.
    """

    shape: tuple[int, ...]
    num_classes: int
    dtype: torch.dtype = torch.float32
