"""The loss of gradient matching: how far guesses' uploads are, and how unlike pictures they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.inversion.batch_norms import unlikeness
from adversary.inversion.continuation import weight_at
from adversary.inversion.distances import DISTANCES
from adversary.inversion.local_steps import flat, simulated
from adversary.inversion.priors import Form, energy, total_variation
from adversary.inversion.problems import Problem
from adversary.inversion.registration import disagreement
from adversary.inversion.rows import Statistics
from adversary.inversion.settings import Settings


@dataclass(frozen=True, eq=False)
class Losses:
    """Points → the loss of each row and its gradient there.

    Attributes:
        problem: What is matched.
        settings: How.
        form: What the leading numbers of a point stand for.
        targets: Probabilities of classes, (rows, batch, classes); None where the numbers after the
            form's are their logits.
        tv: Weight of the total variation at the end, of all rows or of each.
    """

    problem: Problem
    settings: Settings
    form: Form
    targets: Tensor | None
    tv: float | Tensor

    def __call__(self, points: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return losses, (rows,), and gradients, (rows, n), at a share of the way."""
        with torch.enable_grad():
            v = points.detach().requires_grad_()
            losses = self.of(v, share)
            (slope,) = torch.autograd.grad(losses.sum(), v)
        return losses.detach(), slope

    def of(self, v: Float[Tensor, "rows n"], share: float = 1.0) -> Float[Tensor, " rows"]:
        """Return losses that can be differentiated."""
        images, targets = self.form.images(v[:, : self.form.size]), self.targets
        if targets is None:
            logits = v[:, self.form.size :].unflatten(1, (-1, self.problem.classes))
            targets = logits.softmax(dim=-1)
        statistics: Statistics = {}
        losses, settings = self.distance(images, targets, statistics), self.settings
        estimated = self.problem.statistics
        if settings.norms and estimated is not None and statistics:
            losses = losses + settings.norms * unlikeness(statistics, estimated)
        early = share < settings.late
        smooth = (0.0 if early else weight_at(self.tv, share), total_variation)
        for weight, penalty in (smooth, (settings.energy, energy)):
            if isinstance(weight, Tensor) or weight:
                losses = losses + weight * penalty(images)
        if settings.seams and self.problem.seams is not None and not early:
            losses = losses + settings.seams * self.problem.seams.of(images).mean(dim=1)
        if settings.group:
            losses = losses + settings.group * disagreement(images, targets.detach().argmax(dim=2))
        return losses

    def distance(
        self, images: Tensor, targets: Tensor, statistics: Statistics | None = None
    ) -> Float[Tensor, " rows"]:
        """Return how far the simulated uploads are from the observed one, without priors.

        Args:
            images: Guesses.
            targets: Of their labels.
            statistics: Filled with those of batch norms, where something is known of them.
        """
        problem = self.problem
        collected = statistics if problem.statistics is not None and self.settings.norms else None
        parts = simulated(problem.model, images, targets, problem.local, statistics=collected)
        upload = flat(parts) / problem.unit
        if problem.change is not None:
            upload = problem.change(upload)
        if problem.keep is not None:
            upload = upload * problem.keep
        losses = DISTANCES[self.settings.distance](upload, problem.observed)
        if problem.marked is not None and self.settings.marked:
            marked = upload[:, problem.marked], problem.observed[:, problem.marked]
            losses = losses + self.settings.marked * DISTANCES["cosine"](*marked)
        return losses
