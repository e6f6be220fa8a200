"""The joint attack: Gauss-Newton steps on the whole gradient map.

fedsim's own. The residual is that of deep leakage from gradients (L. Zhu, Z. Liu, S. Han, NeurIPS
2019), ‖∇ℓ(x) − g‖².

Idea: what no layer tells by itself all layers may tell together. A Gauss-Newton step needs only
products with the Jacobian of the gradient in the input, which automatic differentiation gives, and
converges where first-order and quasi-Newton matching diverge. Of weights after several local steps
the steps are simulated, and the residual is that of the whole update. Of several examples, labels
and the steps that they were in are fitted too (`adversary.inversion.assignments`).

*Server must know*: the weights sent, the update, how many examples it is of, and the protocol.
*Exact when*: the Jacobian has full rank (`fedsim explain`) and activations are smooth; the kinks of
ReLU stop it early.
*Differs from the paper*: there is none. Labels come from a label attack; with wrong ones nothing is
recovered. Of one step, others which its posterior leaves plausible are tried until one explains the
update. Starts from grey, and from noise where there are several examples or restarts; the start
with the lowest residual wins. The uncertainty is that of least squares
(`adversary.inversion.covariance`), up to 1,100 numbers.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import label_hypotheses
from adversary.costs import Cost, of_descent
from adversary.inversion.applicable import check_twice
from adversary.inversion.assignments import STARTS, Uploads, assigned
from adversary.inversion.covariance import deviations
from adversary.inversion.evidence import TELLING, enough
from adversary.inversion.joint import (
    DENSE,
    INNER,
    LARGE,
    Fit,
    Residual,
    gauss_newton,
    of_gradient,
    of_upload,
)
from adversary.inversion.orders import Uses
from adversary.inversion.problems import Problem, problem_of
from adversary.inversion.reading import batch_gradient, batch_size, precise, weights
from adversary.inversion.setting import SECOND, TERA, Setting, setting_of
from adversary.labels.head import input_shape
from adversary.steps import num_steps
from adversary.workspace import Workspace, workspace
from fedsim.core.doubled import doubled
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.ranges import AboveZero, AtLeastOne
from fedsim.core.types import Auxiliary, Estimate, Observation, View

SPREAD = 0.1  # standard deviation of a random start
EXPLAINED = 1e-8  # squared error over the update's square below which no other labels are tried
FEWEST = 10  # Gauss-Newton steps below which none is begun: right orders take 5 to 11
COMPARED = 200  # assignments in one step, about


@dataclass(frozen=True, eq=False)
class Solution:
    """Inputs, and how far they are from the upload.

    Attributes:
        answer: The inputs, with their uncertainty where it is computed.
        misfit: ‖u(x) − u‖/‖u‖ with the labels and the order that were fitted, u the upload.
        remarks: What is to be said of it.
    """

    answer: Tensor | Estimate
    misfit: float
    remarks: tuple[str, ...] = ()


def joint(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    steps: AtLeastOne = 40,
    restarts: AtLeastOne = 1,
    hypotheses: AtLeastOne = 10,
    budget: AboveZero = 10.0,
) -> Float[Tensor, "n *shape"] | Estimate:
    """Return inputs whose gradient is the observed one, as nearly as the steps came.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Of the label attack and of random starts.
        steps: Gauss-Newton steps of each fit, at most.
        restarts: How many starts, with each hypothesis of the labels. Of several local steps on
            several examples four times as many, at most, with labels that change.
        hypotheses: Labels of a batch that are tried, at most, until an answer explains the update;
            ≥ 1. Of a batch whose labels the head's gradient decides there is one.
        budget: 10¹² floating-point operations that an answer may take, as estimated from shapes;
            > 0. Starts and steps are fewer where they would take more. Below ten steps an update
            is refused: how many examples it is of is the client's claim.

    Raises:
        ValueError: More than the budget is needed, an example's gradient depends on more than the
            example (names the layer), or as `adversary.inversion.reading.batch_size`,
            `mean_gradient`.
    """
    if min(steps, restarts) < 1:
        raise NotApplicable(f"joint: steps, restarts must be at least 1, got {steps}, {restarts}")
    check_twice(view, auxiliary)
    latest = view.latest
    count = batch_size(latest)
    step = operations(setting_of(auxiliary, latest.local, count)) / TERA
    afforded = int(min(budget / step, steps))
    if afforded < min(steps, FEWEST):
        raise NotApplicable(
            f"budget: must be at least {min(steps, FEWEST) * step:.2g} for {count} examples and "
            f"{min(steps, FEWEST)} steps as estimated, got {budget:g}"
        )
    starts = int(min(budget / (afforded * step), STARTS * restarts))
    solution = solved(
        view,
        auxiliary,
        generator,
        steps=afforded,
        restarts=restarts,
        hypotheses=hypotheses,
        starts=starts,
    )
    remarks = list(solution.remarks)
    if afforded < steps:
        remarks.append(f"budget: {budget:g} is enough for {afforded} of {steps} steps")
    for remark in remarks:
        warnings.warn(remark, Remark, stacklevel=2)
    return solution.answer


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
    best, place = None, 0
    for number, labels in enumerate(rows):
        for restart in range(restarts):
            begin = start(first=not restart)
            fit = gauss_newton(residual_of(labels), begin, steps=steps)
            if math.isfinite(fit.error) and (best is None or fit.error < best.error):
                best, place = fit, number
        if best is not None and best.error <= EXPLAINED:
            break
    if best is None:
        raise ValueError("joint: a start must have a finite error, got none")
    said = f"labels: hypothesis {place + 1} of {len(rows)} has the lowest error"
    return _solution(residual_of(rows[place]), best, limit, said if len(rows) > 1 else "")


def _solution(residual: Residual, fit: Fit, limit: float, remark: str) -> Solution:
    """Return an answer with its uncertainty, and whether it explains the upload.

    Raises:
        ValueError: It has no finite error.
    """
    if not math.isfinite(fit.error):
        raise ValueError("joint: a start must have a finite error, got none")
    misfit, said = math.sqrt(fit.error), ""
    if misfit > limit:
        said = (
            f"no start explains the upload: the nearest differs by {misfit:.1g} of it, rounding "
            f"by {limit:.1g}"
        )
    elif limit > TELLING:
        said = (
            f"the answer is not verified: rounding is {limit:.1g} of the upload, and must be at "
            f"most {TELLING:g} to tell answers apart"
        )
    unsure = deviations(residual, fit.inputs)
    answer = fit.inputs if unsure is None else Estimate(fit.inputs, unsure)
    return Solution(answer, misfit, tuple(filter(None, (remark, said))))


def operations(setting: Setting) -> float:
    """Return the floating-point operations of one Gauss-Newton step from one start, at most.

    Of several examples after several steps it is a step of each of two fits, and the assignments
    that are compared.
    """
    size = setting.count * math.prod(setting.shape)
    products = size if size <= LARGE else 0
    if size > DENSE:
        products += 2 * INNER
    fits, compared = (2, COMPARED) if setting.steps > 1 and setting.count > 1 else (1, 0)
    return (fits * SECOND * (1 + products) + compared) * setting.cost * setting.steps


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


def _cost(auxiliary: Auxiliary, count: int, options: Mapping[str, Any]) -> Cost | None:  # noqa: ARG001
    """Return what a Gauss-Newton step's graph takes: starts come one after another."""
    shape = input_shape(auxiliary)
    return of_descent(auxiliary.model, shape, count, rows=1, dtype=torch.float64)


ATTACKS = (
    Attack(
        name="joint",
        family="reconstruction",
        on_device=True,
        infer=joint,
        summary="inputs by Gauss-Newton steps on the whole gradient",
        cost=_cost,
        has_twin=False,
    ),
)
