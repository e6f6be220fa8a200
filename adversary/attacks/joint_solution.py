"""What the joint attack's starts come to: the inputs, and how far they are from the upload.

In: one client's upload and how many steps and starts are made. Out: the start of the lowest error,
with its labels and order where these are fitted (`adversary.inversion.assignments`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from adversary.attacks.batch_labels import label_hypotheses
from adversary.inversion.assignments import STARTS, Uploads, assigned
from adversary.inversion.covariance import deviations
from adversary.inversion.evidence import enough
from adversary.inversion.joint import Fit, Residual, gauss_newton, of_gradient, of_upload
from adversary.inversion.orders import Uses
from adversary.inversion.problems import Problem, problem_of
from adversary.inversion.reading import batch_gradient, batch_size, precise, weights
from adversary.labels.head import input_shape
from adversary.steps import num_steps
from adversary.workspace import Workspace, workspace
from fedsim.core.doubled import doubled
from fedsim.core.ranges import AtLeastOne
from fedsim.core.types import Auxiliary, Estimate, Observation, View

SPREAD = 0.1  # standard deviation of a random start
EXPLAINED = 1e-8  # squared error over the update's square below which no other labels are tried
DIVERGED = "joint: a start must have a finite error, got none"


@dataclass(frozen=True, eq=False)
class Solution:
    """Inputs, and how far they are from the upload.

    Attributes:
        answer: The inputs, with their uncertainty where it is computed.
        misfit: ‖u(x) − u‖/‖u‖ with the labels and the order that were fitted, u the upload.
        rounding: The misfit that rounding alone makes.
        remark: Which start and labels these are of; empty where there was one.
    """

    answer: Tensor | Estimate
    misfit: float
    rounding: float
    remark: str = ""


def solved(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    steps: AtLeastOne = 40,
    restarts: AtLeastOne = 1,
    hypotheses: AtLeastOne = 10,
    starts: int = STARTS,
) -> Solution:
    """Return what `joint` answers, without a budget.

    Args:
        view: See there.
        auxiliary: See there.
        generator: See there.
        steps: See there.
        restarts: See there.
        hypotheses: See there.
        starts: Of several local steps on several examples, at most.
    """
    latest, shape = view.latest, input_shape(auxiliary)
    count = batch_size(latest)
    rows = label_hypotheses(view, auxiliary, generator, most=hypotheses)
    work = workspace(view, auxiliary)
    several = latest.local.upload == "weights" and num_steps(latest) > 1

    def start(*, first: bool = False) -> Tensor:
        grey = torch.full((count, *shape), 0.5, dtype=torch.float64)
        if first and count == 1:
            return grey  # of several, equal inputs would stay equal
        return grey + SPREAD * torch.randn(grey.shape, generator=generator)

    problem = _problem(latest, work)
    limit = enough(latest, problem)
    if several and count > 1:
        uploads = Uploads(problem, Uses(count, latest.local))
        best, number = assigned(
            uploads, rows, start, generator, steps=steps, starts=starts, enough=limit**2
        )
        labels = ", ".join(str(it) for it in best.assignment.labels.tolist())
        said = f"start {number} of {starts} has the lowest error, with labels {labels}"
        return _solution(uploads.of(best.assignment), best.fit, limit, said)
    residual_of = _of_steps(problem) if several else _of_gradient(latest, work)
    fit, place = _fitted(residual_of, rows, start, steps=steps, restarts=restarts)
    said = f"labels: hypothesis {place + 1} of {len(rows)} has the lowest error"
    return _solution(residual_of(rows[place]), fit, limit, said if len(rows) > 1 else "")


def _fitted(
    residual_of: Callable[[Tensor], Residual],
    rows: Tensor,
    start: Callable[..., Tensor],
    *,
    steps: int,
    restarts: int,
) -> tuple[Fit, int]:
    """Return the fit of the least error over hypotheses and restarts, and its hypothesis.

    Raises:
        ValueError: None has a finite error.
    """
    best, place = None, 0
    for number, labels in enumerate(rows):
        for restart in range(restarts):
            fit = gauss_newton(residual_of(labels), start(first=not restart), steps=steps)
            if math.isfinite(fit.error) and (best is None or fit.error < best.error):
                best, place = fit, number
        if best is not None and best.error <= EXPLAINED:
            break
    if best is None:
        raise ValueError(DIVERGED)
    return best, place


def _solution(residual: Residual, fit: Fit, limit: float, remark: str) -> Solution:
    """Return an answer with its uncertainty.

    Raises:
        ValueError: It has no finite error.
    """
    if not math.isfinite(fit.error):
        raise ValueError(DIVERGED)
    unsure = deviations(residual, fit.inputs)
    answer = fit.inputs if unsure is None else Estimate(fit.inputs, unsure)
    return Solution(answer, math.sqrt(fit.error), limit, remark)


def _of_gradient(latest: Observation, work: Workspace) -> Callable[[Tensor], Residual]:
    gradient, sent = batch_gradient(latest, work.auxiliary), weights(latest, work.auxiliary)
    model, smoothing = precise(work), latest.local.label_smoothing
    return lambda labels: of_gradient(model, sent, gradient, labels, smoothing)


def _of_steps(problem: Problem) -> Callable[[Tensor], Residual]:
    return lambda labels: of_upload(problem, labels)


def _problem(latest: Observation, work: Workspace) -> Problem:
    precise(work)  # names a layer that stands in the way
    model = doubled(work.auxiliary.model)
    return problem_of(latest, replace(work.auxiliary, model=model))
