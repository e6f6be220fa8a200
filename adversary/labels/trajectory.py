"""Where the logits go during local training: from the model sent to the model uploaded."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.head import auxiliary_forward
from adversary.workspace import Workspace
from fedsim.core.types import LocalTraining

MOST_ROWS = 2000  # auxiliary examples that are followed along a client's training,
PER_CLASS = 20  # or so many times the classes where that is more
FEWEST = 0.2  # of PER_CLASS, for a class that seems to be absent


@dataclass(frozen=True)
class Start:
    """What the model sent makes of the auxiliary data.

    Attributes:
        logits: Of every example.
        labels: The true classes.
        reach: ‖h‖² + 1, how far a gradient of 1 at the logits moves them; the mean.
        weights: How much each example weighs in the sums that are read; None where all weigh 1.
    """

    logits: Float[Tensor, "n classes"]
    labels: Int[Tensor, " n"]
    reach: float
    weights: Float[Tensor, " n"] | None = None

    def of(self, rows: Int[Tensor, " rows"] | None) -> "Start":
        """Return what the model makes of some of the examples; of all where None are named."""
        if rows is None:
            return self
        weights = None if self.weights is None else self.weights[rows]
        return Start(self.logits[rows], self.labels[rows], self.reach, weights)

    @cached_property
    def confidence(self) -> Float[Tensor, "classes classes"]:
        """E, row j the mean probabilities of class j; of a class without examples, of all."""
        return self._means(self.logits.softmax(dim=1))

    def confidence_at(self, shift: Float[Tensor, "*n classes"]) -> Float[Tensor, "classes classes"]:
        """Return E with the logits moved by `shift`, of examples that weigh as in the sums."""
        p = (self.logits + shift).softmax(dim=1)
        return self._means(p if self.weights is None else p * self.weights.unsqueeze(1))

    def _means(self, p: Float[Tensor, "n classes"]) -> Float[Tensor, "classes classes"]:
        classes = p.shape[1]
        sums = torch.zeros(classes, classes, dtype=p.dtype).index_add_(0, self.labels, p)
        counts = torch.bincount(self.labels, minlength=classes).unsqueeze(1)
        return torch.where(counts > 0, sums / counts.clamp(min=1), p.mean(dim=0))


def followed(
    labels: Int[Tensor, " n"], share: Float[Tensor, " classes"]
) -> Int[Tensor, " rows"] | None:
    """Return the auxiliary examples to follow along a client's training; None for all.

    To follow one costs a forward pass of the uploaded model, and its share at several steps. Where
    there are many, classes give as many as the client seems to have of them, and at least a few.

    Args:
        labels: Of the auxiliary examples.
        share: Of the client's labels, per class, as far as is known.
    """
    classes = len(share)
    most = max(PER_CLASS * classes, MOST_ROWS)
    if len(labels) <= most:
        return None
    each = (most * share).clamp(min=FEWEST * most / classes).round()
    counts = torch.bincount(labels, minlength=classes)
    begin = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    order = labels.argsort(stable=True)
    place = torch.arange(len(labels)) - begin  # of each example within its class
    return order[place < each[labels[order]]].sort().values


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
