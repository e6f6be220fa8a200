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
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.joint_solution import solved
from adversary.costs import Cost, of_descent
from adversary.inversion.applicable import check_twice
from adversary.inversion.assignments import STARTS
from adversary.inversion.budgets import RATE, TERA, least, within
from adversary.inversion.evidence import verdict, verified
from adversary.inversion.joint import (
    DENSE,
    INNER,
    LARGE,
)
from adversary.inversion.reading import batch_size
from adversary.inversion.setting import SECOND, Setting, setting_of
from adversary.labels.head import input_shape
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.ranges import AboveZero, AtLeastOne
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View

CALL = 1e-4  # seconds of a gradient, however small: 160 steps of a net of 0.2 · 10⁶ took 42
COMPARED = 200  # assignments in one step, about


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
    setting = setting_of(auxiliary, view.latest.local, batch_size(view.latest))
    amount, starts = _afforded(setting, steps, restarts, budget)
    solution = solved(
        view,
        auxiliary,
        generator,
        steps=amount,
        restarts=restarts,
        hypotheses=hypotheses,
        starts=starts,
    )
    remarks = [solution.remark]
    if not verified(solution.misfit, solution.rounding):
        said = verdict(solution.misfit, solution.rounding)
        remarks.append(f"the nearest answer's simulated upload {said}")
    if amount < steps:
        remarks.append(f"budget: {budget:g} is enough for {amount} of {steps} steps")
    for remark in filter(None, remarks):
        warnings.warn(remark, Remark, stacklevel=2)
    return solution.answer


def planned(
    auxiliary: Auxiliary,
    local: LocalTraining,
    count: int,
    *,
    steps: int = 40,
    restarts: int = 1,
    budget: float = 10.0,
) -> str:
    """Return how long an answer may take, or why every update will be refused; else nothing.

    Args:
        auxiliary: The architecture.
        local: How clients train.
        count: Examples of an update.
        steps: As for `joint`.
        restarts: The same.
        budget: The same.
    """
    try:
        setting = setting_of(auxiliary, local, count)
        amount, starts = _afforded(setting, steps, restarts, budget)
    except NotApplicable as reason:
        return f"will refuse every update: {reason}"
    starts = starts if _assigns(setting) else restarts
    gradients = starts * amount * operations(setting) / setting.cost
    cost = Cost(gradients * (CALL + setting.cost / RATE), 0.0)
    if not cost.is_large:
        return ""
    return (
        f"takes up to about {cost.duration} for an answer where no start explains the upload, as "
        f"estimated from shapes: {amount} steps from each of {starts} starts"
    )


def _afforded(setting: Setting, steps: int, restarts: int, budget: float) -> tuple[int, int]:
    """Return how many steps and, where labels are fitted, starts a budget is enough for.

    Raises:
        NotApplicable: It is not enough to begin.
    """
    step, share = operations(setting), budget * TERA
    amount, fewest = within("steps", steps, step, share), least("steps", steps)
    if not amount:
        raise NotApplicable(
            f"budget: must be at least {fewest * step / TERA:.2g} for {setting.count} examples and "
            f"{fewest} steps as estimated, got {budget:g}"
        )
    return amount, int(min(share / (amount * step), STARTS * restarts))


def _assigns(setting: Setting) -> bool:
    """Return whether labels and orders are fitted too."""
    return setting.local.upload == "weights" and setting.steps > 1 and setting.count > 1


def operations(setting: Setting) -> float:
    """Return the floating-point operations of one Gauss-Newton step from one start, at most.

    Of several examples after several steps it is a step of each of two fits, and the assignments
    that are compared.
    """
    size = setting.count * math.prod(setting.shape)
    products = size if size <= LARGE else 0
    if size > DENSE:
        products += 2 * INNER
    fits, compared = (2, COMPARED) if _assigns(setting) else (1, 0)
    return (fits * SECOND * (1 + products) + compared) * setting.cost * setting.steps


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
        plan=planned,
        cost=_cost,
        has_twin=False,
    ),
)
