"""Gradient matching: inputs whose simulated upload is like the one observed.

All restarts are rows of one computation (`rows`, `descent`); the winner is the one of the lowest
loss, which is all that the attacker sees.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Infer
from adversary.inversion.descent import Best, adam, lbfgs
from adversary.inversion.distances import DISTANCES, Distance
from adversary.inversion.local_steps import flat, one_hot, simulated
from adversary.inversion.priors import (
    Form,
    data_range,
    disagreement,
    energy,
    form_of,
    total_variation,
)
from adversary.inversion.reading import batch_size
from adversary.inversion.rows import Rows
from adversary.labels.head import input_shape
from adversary.members.candidates import trained_names
from adversary.steps import mean_weight, num_steps
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.params import not_finite
from fedsim.core.types import Auxiliary, LocalTraining, Observation, View

ENTRIES = 2**25  # of the simulated uploads of all rows that are computed at a time: 128 MiB each

Change = Callable[[Float[Tensor, "rows entries"]], Float[Tensor, "rows entries"]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to match.

    Attributes:
        distance: Of a simulated upload and the observed one: one minus their cosine, the squared
            distance over the squared length of the observed one, or the same of absolute values.
        optimiser: "lbfgs", or "adam", or "signed" for Adam on the gradient's signs.
        iterations: Evaluations of the loss, for each restart.
        restarts: Rows.
        lr: Of Adam, in units of the inputs.
        tv: Weight of the total variation.
        energy: Weight of the mean square.
        group: Weight of the distance between restarts.
        prior: What guesses are written as, see `priors.form_of`.
        box: Whether points are kept in the range of the data on their way.
        normal: Whether restarts begin as N(0, 1), or evenly in the range of the data.
    """

    distance: Distance = "cosine"
    optimiser: Literal["lbfgs", "adam", "signed"] = "signed"
    iterations: int = 1000
    restarts: int = 8
    lr: float = 0.1
    tv: float = 0.0
    energy: float = 0.0
    group: float = 0.0
    prior: str = "pixels"
    box: bool = True
    normal: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts"):
            if getattr(self, name) < 1:
                raise NotApplicable(f"{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("tv", "energy", "group"):
            if not getattr(self, name) >= 0:
                raise NotApplicable(f"{name}: must be at least 0, got {getattr(self, name)}")
        if not self.lr > 0:
            raise NotApplicable(f"lr: must be above 0, got {self.lr}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """What is matched.

    Attributes:
        model: At the weights sent.
        local: The protocol.
        unit: What an upload is divided by, to be of the size of one gradient.
        observed: The upload in that unit, of all rows or of each, shape (1 or rows, entries).
        shape: Of a guess, (batch, *shape of one).
        classes: Number of labels.
        change: What is done to the simulated upload before it is compared; None for nothing.
        keep: 1 for entries that are compared, 0 for others, shape (entries,); None for all.
    """

    model: Rows
    local: LocalTraining
    unit: float
    observed: Float[Tensor, "rows entries"]
    shape: tuple[int, ...]
    classes: int
    change: Change | None = None
    keep: Float[Tensor, " entries"] | None = None


def reconstruct(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    settings: Settings,
    *,
    recover: Infer | None = None,
    adapt: Callable[[Problem, Workspace, Settings], tuple[Problem, Settings]] | None = None,
) -> Float[Tensor, "n *shape"]:
    """Return the client's examples as the best restart has them, in the range of the data.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; inputs, where there are any, tell the range of the data.
        generator: Draws where restarts begin, and in which order labels are used.
        settings: How to match; of inputs that are no images there is no total variation.
        recover: The label attack that tells the labels of the batch; None to fit them too.
        adapt: Makes use of a defense that the adversary knows.

    Raises:
        ValueError: The client told no number of examples, the update is a sum over clients, not
            finite, or lacks a parameter, the label attack has no answer, or no restart has a
            finite loss.
    """
    problem = problem_of(view.latest, auxiliary)
    if len(problem.shape) != 4:
        settings = replace(settings, tv=0.0)
    labels = None if recover is None else recover(view, auxiliary, generator)
    if adapt is not None and auxiliary.defense is not None:
        problem, settings = adapt(problem, workspace(view, auxiliary), settings)
    guesses, losses = match(problem, settings, labels, generator, box=data_range(auxiliary))
    if not bool(torch.isfinite(losses).any()):
        raise ValueError("matching: a restart must have a finite loss, got none")
    return guesses[int(losses.nan_to_num(nan=torch.inf).argmin())]


def problem_of(observation: Observation, auxiliary: Auxiliary) -> Problem:
    """Return what is matched of an observation.

    Raises:
        ValueError: As for `reconstruct`.
    """
    count, names = batch_size(observation), trained_names(auxiliary)
    delta, local = observation.update.delta, observation.local
    if missing := [name for name in names if name not in delta]:
        raise NotApplicable(f"{missing[0]}: must be in the update")
    if reason := not_finite({name: delta[name] for name in names}):
        raise ValueError(f"update: {reason}")
    model = Rows(auxiliary.model, observation.sent, names)
    unit = 1.0
    if local.upload == "weights":
        steps = num_steps(observation)
        unit = -local.lr * mean_weight(local, steps) * steps
    observed = flat([delta[name].to(model.dtype).unsqueeze(0) for name in names]) / unit
    if not bool(observed.any()):
        raise ValueError("update: must not be zero")
    shape, classes = (count, *input_shape(auxiliary)), auxiliary.num_classes
    return Problem(
        model=model, local=local, unit=unit, observed=observed, shape=shape, classes=classes
    )


def match(
    problem: Problem,
    settings: Settings,
    labels: Int[Tensor, " batch"] | None,
    generator: Generator,
    *,
    box: tuple[Tensor, Tensor],
    weights: Float[Tensor, " rows"] | None = None,
    form: Form | None = None,
) -> tuple[Float[Tensor, "rows batch *shape"], Float[Tensor, " rows"]]:
    """Return each restart's guess, and its loss.

    Args:
        problem: What is matched.
        settings: How.
        labels: Of the batch; None to fit them too.
        generator: Draws where restarts begin.
        box: Least and greatest inputs.
        weights: Of the total variation, of each row; None for that of the settings.
        form: What guesses are written as; None for the settings' prior.
    """
    form = form or form_of(
        settings.prior,
        problem.shape,
        problem.model.dtype,
        generator,
        box=box if settings.box else None,
        normal=settings.normal,
    )
    rows = settings.restarts
    start, targets = _begin(problem, form, labels, rows, generator)
    size = rows if settings.group else max(1, ENTRIES // problem.observed.shape[1])
    results = []
    for part in torch.arange(rows).split(size):
        observed = problem.observed if len(problem.observed) == 1 else problem.observed[part]
        evaluate = Losses(
            replace(problem, observed=observed),
            settings,
            form,
            None if targets is None else targets[part],
            settings.tv if weights is None else weights[part],
        )
        results.append(_descend(evaluate, start[part], settings, form))
    points = torch.cat([best.points for best in results])
    with torch.no_grad():
        images = form.images(points[:, : form.size])
    low, high = (edge.to(images.dtype) for edge in box)
    return torch.maximum(torch.minimum(images, high), low), torch.cat([b.losses for b in results])


def _begin(
    problem: Problem, form: Form, labels: Tensor | None, rows: int, generator: Generator
) -> tuple[Tensor, Tensor | None]:
    """Return where restarts begin, and their targets; None where these are fitted too."""
    start, batch = form.start(rows, generator), problem.shape[0]
    if labels is None:
        drawn = torch.randn(rows, batch * problem.classes, dtype=start.dtype, generator=generator)
        return torch.cat([start, drawn], dim=1), None
    # In which local step a label was used is not known: restarts differ in it.
    several = problem.local.upload == "weights" and batch > problem.local.batch_size
    orders = [
        torch.randperm(batch, generator=generator) if several else torch.arange(batch)
        for _ in range(rows)
    ]
    return start, one_hot(labels[torch.stack(orders)], problem.classes, start.dtype)


def _descend(evaluate: "Losses", start: Tensor, settings: Settings, form: Form) -> Best:
    if settings.optimiser == "lbfgs":
        return lbfgs(evaluate, start, steps=settings.iterations)
    project = form.project
    if project is not None and start.shape[1] > form.size:
        project = partial(_leading, project, form.size)
    signed = settings.optimiser == "signed"
    return adam(
        evaluate, start, steps=settings.iterations, lr=settings.lr, signed=signed, project=project
    )


def _leading(project: Callable[[Tensor], Tensor], size: int, v: Tensor) -> Tensor:
    return torch.cat([project(v[:, :size]), v[:, size:]], dim=1)


@dataclass(frozen=True, eq=False)
class Losses:
    """Points → the loss of each row and its gradient there.

    Attributes:
        problem: What is matched.
        settings: How.
        form: What the leading numbers of a point stand for.
        targets: Probabilities of classes, (rows, batch, classes); None where the numbers after the
            form's are their logits.
        tv: Weight of the total variation, of all rows or of each.
    """

    problem: Problem
    settings: Settings
    form: Form
    targets: Tensor | None
    tv: float | Tensor

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses, (rows,), and gradients, (rows, n)."""
        with torch.enable_grad():
            v = points.detach().requires_grad_()
            losses = self.of(v)
            (slope,) = torch.autograd.grad(losses.sum(), v)
        return losses.detach(), slope

    def of(self, v: Float[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
        """Return losses that can be differentiated."""
        problem, settings = self.problem, self.settings
        images = self.form.images(v[:, : self.form.size])
        targets = self.targets
        if targets is None:
            logits = v[:, self.form.size :].unflatten(1, (-1, problem.classes))
            targets = logits.softmax(dim=-1)
        upload = flat(simulated(problem.model, images, targets, problem.local)) / problem.unit
        if problem.change is not None:
            upload = problem.change(upload)
        if problem.keep is not None:
            upload = upload * problem.keep
        losses = DISTANCES[settings.distance](upload, problem.observed)
        smooth, short = (self.tv, total_variation), (settings.energy, energy)
        for weight, penalty in (smooth, short, (settings.group, disagreement)):
            if isinstance(weight, Tensor) or weight:
                losses = losses + weight * penalty(images)
        return losses
