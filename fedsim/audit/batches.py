"""Two neighbouring data sets of one client."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from fedsim.core.types import Params


class Batch(NamedTuple):
    """One client's data in a round.

    Attributes:
        inputs: Shape (n, *shape).
        labels: Shape (n,); of a language model the next tokens, shape (n, T).
        present: Whether each record is in the data. One that is not takes part in sampling and is
            then left out, so that nothing but its gradient depends on it. Shape (n,).
    """

    inputs: Tensor
    labels: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Two neighbouring data sets of one client, and the weights it is sent.

    Attributes:
        model: Work space.
        states: The weights sent in each round.
        batches: The client's data in each round: without the canary (or with its other value), and
            with it.
        constant: Whether gradients are the same at all weights.
    """

    model: nn.Module
    states: Sequence[Params]
    batches: tuple[Sequence[Batch], Sequence[Batch]]
    constant: bool = False


def trained_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
