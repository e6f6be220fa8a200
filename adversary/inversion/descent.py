"""Descent of many rows at once, each by itself, by Adam; `adversary.inversion.lbfgs` has L-BFGS.

One evaluation serves all rows, and none has a say in another's direction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.core import progress

Evaluate = Callable[
    [Float[Tensor, "rows n"]], tuple[Float[Tensor, " rows"], Float[Tensor, "rows n"]]
]
"""Points → the loss of each row and its gradient there."""

Changing = Callable[
    [Float[Tensor, "rows n"], float], tuple[Float[Tensor, " rows"], Float[Tensor, "rows n"]]
]
"""Points and the share of the way → the loss of each row and its gradient."""

Project = Callable[[Float[Tensor, "rows n"]], Float[Tensor, "rows n"]]

MILESTONES = (3 / 8, 5 / 8, 7 / 8)  # of all steps, where Geiping et al. divide the rate by ten


class Moments:
    """Adam's running means of gradients and of their squares, β = (0.9, 0.999), row by row."""

    def __init__(self, like: Float[Tensor, "rows n"]) -> None:
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.count = 0

    def step(
        self, g: Float[Tensor, "rows n"], rate: float | Float[Tensor, "rows 1"], *, signed: bool
    ) -> Float[Tensor, "rows n"]:
        """Return how far to go, uphill; entries of g that are not finite count as 0."""
        self.count += 1
        g = g.nan_to_num(posinf=0.0, neginf=0.0)
        g = g.sign() if signed else g
        self.mean.lerp_(g, 0.1)
        self.square.lerp_(g * g, 0.001)
        scale = self.square.div(1 - 0.999**self.count).sqrt_().add_(1e-8)
        return self.mean.div(scale).mul_(rate / (1 - 0.9**self.count))


@dataclass
class Best:
    """The best point that each row has seen, by its own loss.

    Attributes:
        points: Shape (rows, n).
        losses: Shape (rows,).
    """

    points: Float[Tensor, "rows n"]
    losses: Float[Tensor, " rows"]

    @classmethod
    def of(cls, points: Tensor) -> "Best":
        """Start with nothing seen."""
        return cls(points.clone(), torch.full((len(points),), torch.inf, dtype=points.dtype))

    def see(self, points: Tensor, losses: Tensor) -> None:
        """Keep rows that are better; NaN is not."""
        better = losses < self.losses
        self.points = torch.where(better.unsqueeze(1), points, self.points)
        self.losses = torch.where(better, losses, self.losses)


def adam(
    evaluate: Evaluate,
    start: Float[Tensor, "rows n"],
    *,
    steps: int,
    lr: float | Float[Tensor, "rows 1"],
    signed: bool = False,
    project: Project | None = None,
) -> Best:
    """Adam whose rate falls to a tenth at each of `MILESTONES`.

    Args:
        evaluate: The losses.
        start: Where each row begins.
        steps: Evaluations.
        lr: Learning rate, of all rows or of each.
        signed: Whether Adam is given the gradient's signs only.
        project: Puts points back to where they are allowed, after each step.
    """
    rate = lambda step: lr * 0.1 ** sum(step > share * steps for share in MILESTONES)
    unchanged = lambda points, _share: evaluate(points)
    return scheduled(unchanged, start, steps=steps, rate=rate, signed=signed, project=project)


def scheduled(
    evaluate: Changing,
    start: Float[Tensor, "rows n"],
    *,
    steps: int,
    rate: Callable[[int], float | Float[Tensor, "rows 1"]],
    signed: bool,
    project: Project | None,
    settled: float = 0.0,
) -> Best:
    """Adam on a loss that may change on the way, with a learning rate for each step from 1 on.

    Args:
        evaluate: The losses.
        start: Where each row begins.
        steps: Evaluations.
        rate: Step → learning rate, of all rows or of each.
        signed: Whether Adam is given the gradient's signs only.
        project: Puts points back to where they are allowed, after each step.
        settled: Share of the way from which on points count.
    """
    v, moments, best = start.clone(), Moments(start), Best.of(start)
    for step in progress.steps(steps, "iterations"):
        share = step / steps
        losses, g = evaluate(v, share)
        if share >= settled:
            best.see(v, losses)
        v = v - moments.step(g, rate(step), signed=signed)
        v = project(v) if project else v
    return best
