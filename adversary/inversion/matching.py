"""Gradient matching: inputs whose simulated upload is like the one observed.

All restarts are rows of one computation (`rows`, `descent`); the winner is the one of the lowest
loss, which is all that the attacker sees.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Infer
from adversary.costs import FIXED, SHARE, of_descent
from adversary.inversion.applicable import check_twice
from adversary.inversion.continuation import continued
from adversary.inversion.descent import Best, adam
from adversary.inversion.lbfgs import lbfgs
from adversary.inversion.local_steps import one_hot
from adversary.inversion.losses import Losses
from adversary.inversion.priors import Form, data_range, form_of
from adversary.inversion.problems import Problem, problem_of
from adversary.inversion.settings import Settings
from adversary.inversion.spread import estimated
from adversary.workspace import Workspace, workspace
from fedsim.core import devices, progress
from fedsim.core.errors import Remark
from fedsim.core.types import Auxiliary, Estimate, View

RACE = 200  # iterations after which label hypotheses are compared
ENTRIES = 2**25  # of the simulated uploads of all rows that are computed at a time: 128 MiB each

Adapt = Callable[[Problem, Workspace, Settings], tuple[Problem, Settings]]
"""What the adversary knows beforehand → the problem and the settings, changed by it."""

Finish = Callable[[Tensor | Estimate, float, Problem, Workspace, Settings], Tensor | Estimate]
"""An answer and its loss, with the problem and the settings that led to it → the final answer."""


def reconstruct(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    settings: Settings,
    *,
    recover: Infer | None = None,
    adapt: Sequence[Adapt] = (),
    finish: Finish | None = None,
) -> Float[Tensor, "n *shape"] | Estimate:
    """Return the client's examples as the best restart has them, in the range of the data.

    With several restarts also how far they lie apart (`adversary.inversion.spread`).

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; inputs, where there are any, tell the range of the data.
        generator: Draws where restarts begin, and in which order labels are used.
        settings: How to match; of inputs that are no images there is no total variation.
        recover: The label attack that gives the labels of the batch, or several hypotheses, one per
            row, of which the one with the lowest loss is taken; None to fit them too.
        adapt: Change how to match, in this order: by rehearsals (`tuning`), by a defense that the
            adversary knows (`through_defenses`).
        finish: Makes the final answer, see `shrinkage`; None to leave it as it is.

    Raises:
        ValueError: As for `problem_of` or `applicable.check_twice`, the label attack has no answer,
            or no restart has a finite loss.
    """
    check_twice(view, auxiliary)
    problem, work = problem_of(view.latest, auxiliary), workspace(view, auxiliary)
    if len(problem.shape) != 4:
        settings = replace(settings, tv=0.0)
    labels = None if recover is None else recover(view, auxiliary, generator)
    for change in adapt:
        with progress.part("rehearsing"):
            problem, settings = change(problem, work, settings)
    if labels is not None and labels.ndim > 1:
        labels = labels[raced(problem, settings, labels, generator, box=data_range(auxiliary))]
    guesses, losses = match(problem, settings, labels, generator, box=data_range(auxiliary))
    if not bool(torch.isfinite(losses).any()):
        raise ValueError("matching: a restart must have a finite loss, got none")
    answer = estimated(guesses, losses)
    if finish is None:
        return answer
    loss = float(losses[torch.isfinite(losses)].min())
    return finish(answer, loss, problem, work, settings)


def raced(
    problem: Problem,
    settings: Settings,
    hypotheses: Int[Tensor, "hypotheses batch"],
    generator: Generator,
    *,
    box: tuple[Tensor, Tensor],
    form: Form | None = None,
) -> int:
    """Return the labels with which guesses come nearest to the upload after `RACE` iterations.

    Of several, a remark says how many were tried and which has the lowest loss.

    Args:
        problem: What is matched.
        settings: How.
        hypotheses: Labels of the batch, the likeliest first.
        generator: Draws where guesses begin.
        box: Least and greatest inputs.
        form: As for `match`.
    """
    if len(hypotheses) == 1:
        return 0
    short = min(RACE, settings.iterations)
    racing = replace(settings, restarts=len(hypotheses), iterations=short, group=0.0)
    with progress.part("comparing labels"):
        _, losses = match(problem, racing, hypotheses, generator, box=box, form=form)
    best = int(losses.nan_to_num(nan=torch.inf).argmin())
    said = f"labels: hypothesis {best + 1} of {len(hypotheses)} has the lowest matching loss"
    warnings.warn(said, Remark, stacklevel=2)
    return best


def match(
    problem: Problem,
    settings: Settings,
    labels: Int[Tensor, "*rows batch"] | None,
    generator: Generator,
    *,
    box: tuple[Tensor, Tensor],
    weights: Float[Tensor, " rows"] | None = None,
    rates: Float[Tensor, " rows"] | None = None,
    form: Form | None = None,
) -> tuple[Float[Tensor, "rows batch *shape"], Float[Tensor, " rows"]]:
    """Return each restart's guess, and its loss.

    Args:
        problem: What is matched.
        settings: How.
        labels: Of the batch, of all rows or of each; None to fit them too.
        generator: Draws where restarts begin.
        box: Least and greatest inputs.
        weights: Of the total variation, of each row; None for that of the settings.
        rates: Of Adam, of each row; None for that of the settings.
        form: What guesses are written as; None for the settings' prior.
    """
    form = form or form_of(
        settings.prior,
        problem.shape,
        problem.model.dtype,
        generator,
        box=box if settings.box else None,
        start=settings.start,
    )
    start, targets = _begin(problem, form, labels, settings.restarts, generator)
    size = settings.restarts if settings.group else _at_once(problem)
    results = []
    for part in torch.arange(settings.restarts).split(size):
        observed = problem.observed if len(problem.observed) == 1 else problem.observed[part]
        evaluate = Losses(
            replace(problem, observed=observed),
            settings,
            form,
            None if targets is None else targets[part],
            settings.tv if weights is None else weights[part],
        )
        lr = settings.lr if rates is None else rates[part].to(start.dtype).unsqueeze(1)
        results.append(_descend(evaluate, start[part], settings, form, lr))
    points = torch.cat([best.points for best in results])
    with torch.no_grad():
        images = form.images(points[:, : form.size])
    low, high = (edge.to(images.dtype) for edge in box)
    return torch.maximum(torch.minimum(images, high), low), torch.cat([b.losses for b in results])


def _at_once(problem: Problem) -> int:
    """Return how many rows are computed at a time: on an accelerator as many as fit into it."""
    if (free := devices.free_memory(devices.here())) is None:
        return max(1, ENTRIES // problem.observed.shape[1])
    model = copy.deepcopy(problem.model.model).requires_grad_(requires_grad=True)
    batch, *shape = problem.shape
    cost = of_descent(model, tuple(shape), batch, rows=1, dtype=problem.model.dtype)
    return 1 if cost is None else max(1, int(SHARE * free / max(1.0, cost.num_bytes - FIXED)))


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
    ordered = labels.expand(rows, batch).gather(1, torch.stack(orders))
    return start, one_hot(ordered, problem.classes, start.dtype)


def _descend(
    evaluate: Losses,
    start: Tensor,
    settings: Settings,
    form: Form,
    lr: float | Float[Tensor, "rows 1"],
) -> Best:
    if settings.optimiser == "lbfgs":
        return lbfgs(evaluate, start, steps=settings.iterations)
    project = form.project
    if project is not None and start.shape[1] > form.size:
        project = partial(_leading, project, form.size)
    descend = continued if settings.falls else adam
    signed = settings.optimiser == "signed"
    return descend(
        evaluate, start, steps=settings.iterations, lr=lr, signed=signed, project=project
    )


def _leading(project: Callable[[Tensor], Tensor], size: int, v: Tensor) -> Tensor:
    return torch.cat([project(v[:, :size]), v[:, size:]], dim=1)
