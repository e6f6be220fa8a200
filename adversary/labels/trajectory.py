"""Where the logits go during local training: from the model sent to the model uploaded."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.head import auxiliary_forward
from adversary.workspace import Workspace
from fedsim.core.types import LocalTraining


@dataclass(frozen=True)
class Start:
    """What the model sent makes of the auxiliary data.

    Attributes:
        logits: Of every example.
        labels: The true classes.
        reach: ‖h‖² + 1, how far a gradient of 1 at the logits moves them; the mean.
    """

    logits: Float[Tensor, "n classes"]
    labels: Int[Tensor, " n"]
    reach: float

    @cached_property
    def confidence(self) -> Float[Tensor, "classes classes"]:
        """E, row j the mean probabilities of class j; of a class without examples, of all."""
        return self.confidence_at(torch.zeros_like(self.logits[0]))

    def confidence_at(self, shift: Float[Tensor, "*n classes"]) -> Float[Tensor, "classes classes"]:
        """Return E with the logits moved by `shift`."""
        p = (self.logits + shift).softmax(dim=1)
        classes = p.shape[1]
        sums = torch.zeros(classes, classes, dtype=p.dtype).index_add_(0, self.labels, p)
        counts = torch.bincount(self.labels, minlength=classes).unsqueeze(1)
        return torch.where(counts > 0, sums / counts.clamp(min=1), p.mean(dim=0))


def start_of(work: Workspace) -> Start:
    """Return what the model sent makes of the auxiliary data: a part of the workspace."""
    assert work.auxiliary.labels is not None
    outputs = work.part(auxiliary_forward)
    reach = float(outputs.features.double().square().sum(dim=1).mean()) + 1
    return Start(outputs.logits.double(), work.auxiliary.labels, reach)


def simulate(
    start: Start, share: Float[Tensor, " classes"], local: LocalTraining, steps: int
) -> Float[Tensor, "points classes"]:
    """Return by how much local training moves the mean logits, before each step and at the end.

    A step moves them by −lr·ḡ·(‖h‖² + 1), where ḡ is the mean of p − target: Chen and Vikalo,
    "Recovering Labels from Local Updates in Federated Learning", ICML 2024.

    Args:
        start: Of the model sent.
        share: Of the labels, per class.
        local: Learning rate, momentum, FedProx and label smoothing.
        steps: How many steps a client takes.
    """
    present = share > 0
    weight, log_e = share[present], start.confidence[present].log()
    target = (1 - local.label_smoothing) * share + local.label_smoothing / len(share)
    shift = velocity = torch.zeros_like(share)
    shifts = [shift]
    for _ in range(steps):
        gradient = weight @ (log_e + shift).softmax(dim=1) - target
        velocity = local.momentum * velocity + start.reach * gradient + local.proximal_mu * shift
        shift = shift - local.lr * velocity
        shifts.append(shift)
    return torch.stack(shifts)


def path(
    shifts: Float[Tensor, "points classes"], moved: Float[Tensor, "n classes"], points: int
) -> list[tuple[float, Float[Tensor, "n classes"]]]:
    """Return how far each example's logits have moved, before some of the steps.

    The simulated shift gives the path its curve; what its end lacks of the logits that the
    uploaded model really gives is added in proportion to the steps taken.

    Args:
        shifts: As `simulate` returns them.
        moved: Every example's logits under the model uploaded minus those under the model sent.
        points: How many steps to look at, evenly spread; all where there are fewer.

    Returns:
        The part of the way, in [0, 1), and the movement.
    """
    steps = len(shifts) - 1
    missed = (moved - shifts[-1]) / steps
    every = torch.linspace(0, steps - 1, min(points, steps)).round().long().tolist()
    return [(step / steps, shifts[step] + step * missed) for step in every]
