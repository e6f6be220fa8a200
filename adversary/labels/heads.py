"""The heads' gradients of many updates at once, for attacks that answer all clients of a round."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.head import HeadGradient, NoHead, find_head
from adversary.steps import num_labels, to_sum
from adversary.workspace import workspace
from fedsim.core.params import stacked
from fedsim.core.types import Auxiliary, View


@dataclass(frozen=True)
class HeadGradients:
    """What `adversary.labels.head.HeadGradient` holds, a row for each update.

    Attributes:
        observed: The heads' weights as they stand in the updates.
        observed_bias: Their biases; None for a head without.
        scale: From each update to the sum over all its labels.
        total: How many labels there are in each.
    """

    observed: Float[Tensor, "n classes features"]
    observed_bias: Float[Tensor, "n classes"] | None
    scale: Float[Tensor, " n"]
    total: Int[Tensor, " n"]

    @property
    def row_sums(self) -> Float[Tensor, "n classes"]:
        """The row sums of each, float64: the `g` of the LLG paper."""
        return self.observed.sum(dim=2, dtype=torch.float64) * self.scale.unsqueeze(1)

    @property
    def bias(self) -> Float[Tensor, "n classes"] | None:
        """The bias of each as a sum over labels, float64."""
        if self.observed_bias is None:
            return None
        return self.observed_bias.double() * self.scale.unsqueeze(1)


def read_heads(views: Sequence[View], auxiliary: Auxiliary) -> HeadGradients:
    """Read the heads' parts of the views' latest updates.

    Raises:
        ValueError: `read_head` refuses one of them, or its entries are so large that it may.
    """
    latest = [view.latest for view in views]
    head = find_head(workspace(views[0], auxiliary))
    names = [name for name in (head.weight, head.bias) if name is not None]
    deltas = [each.update.delta for each in latest]
    if not all(set(names).issubset(delta) for delta in deltas):
        raise NoHead("update: must hold the head's gradient, got none")
    parts = {name: stacked(deltas, name) for name in names}
    weight, bias = head.slopes(parts)
    if not bool(_moved(*parts.values()).all()):
        raise ValueError("update: must move the head, got zeros")
    # Where the sizes of all entries have a finite sum, so has any part of them.
    if not torch.isfinite(torch.stack([part.abs().sum() for part in parts.values()])).all():
        raise ValueError("update: the head's gradient must be finite, got NaN or infinity")
    scale = torch.tensor([to_sum(each) for each in latest], dtype=torch.float64)
    return HeadGradients(weight, bias, scale, torch.tensor([num_labels(each) for each in latest]))


def one_head(head: HeadGradient) -> HeadGradients:
    """Return a single head's gradient as the only row."""
    bias = None if head.observed_bias is None else head.observed_bias.unsqueeze(0)
    scale = torch.tensor([head.scale], dtype=torch.float64)
    return HeadGradients(head.observed.unsqueeze(0), bias, scale, torch.tensor([head.total]))


def _moved(*parts: Tensor) -> Tensor:
    """Return which updates have an entry other than zero in one of the parts."""
    moved = [part.flatten(1).any(dim=1) for part in parts]
    return torch.stack(moved).any(dim=0)
