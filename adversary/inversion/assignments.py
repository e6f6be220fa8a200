"""Several local steps on several examples: labels and orders are fitted beside the inputs.

fedsim's own. The server is sent neither the labels nor which examples were in which step. With one
of them wrong nothing comes back where the learning rate is large. D. I. Dimitrov, M. Balunović,
N. Konstantinov, M. Vechev, "Data Leakage in Federated Averaging", TMLR 2022, give every epoch
pictures of its own and pull them together by a prior that does not depend on order.

Idea: one Gauss-Newton step is linear in the inputs, so that the error which it would leave is the
distance of the residual from the Jacobian's columns. It is computed of every assignment next to the
present one (a label changed, two examples exchanged in an epoch, two such exchanges): each takes
one simulated upload, where the Jacobian takes hundreds. The best is taken until none is better;
then the inputs move. Right labels and orders are there after a few steps, before the inputs are. A
descent that ends elsewhere is repeated from its start with the labels and orders that it reached,
and then from another start.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.inversion.joint import (
    LARGE,
    Fit,
    Linearised,
    Residual,
    gauss_newton,
    linearised,
)
from adversary.inversion.local_steps import flat, one_hot, shared
from adversary.inversion.orders import Uses
from adversary.inversion.problems import Problem
from fedsim.core import progress

STARTS = 4  # of a search
STALLED = 1e-2  # relative gain of a step that is none: the descent is near its end
NEAR = 1e-6  # squared error from which inputs are fitted alone
AGAIN = 15  # steps from the start with labels and order that were reached
EXCHANGES = 40  # between two steps of the inputs, at most
NEARBY = 600  # assignments that are compared at a time, at most
PAIRS = 12  # single exchanges up to which pairs of them are compared, too
TOGETHER = 64  # uploads that are simulated at a time
ENTRIES = 2**22  # of them
DAMPING, GROW, SHRINK, HOPELESS = 1e-2, 4.0, 0.25, 1e10  # of the mean curvature
SKETCH = 32  # directions that stand for a Jacobian that is too large
BETTER = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class Assignment:
    """What of a client's training is not sent and not continuous.

    Attributes:
        labels: Of the examples.
        order: Which steps they are in (`adversary.inversion.orders`).
    """

    labels: Int[Tensor, " n"]
    order: Float[Tensor, "epochs steps n"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Inputs fitted with an assignment.

    Attributes:
        fit: The inputs and their error.
        assignment: Theirs.
    """

    fit: Fit
    assignment: Assignment

    @property
    def error(self) -> float:
        """That of the fit; infinite where it has none."""
        return self.fit.error if math.isfinite(self.fit.error) else math.inf


@dataclass(frozen=True, eq=False)
class Uploads:
    """Simulated uploads beside the one observed.

    Attributes:
        problem: What is matched, float64.
        uses: Which orders there are.
    """

    problem: Problem
    uses: Uses

    def residuals(
        self, inputs: Tensor, labels: Tensor, orders: Tensor, *, differentiable: bool = False
    ) -> Float[Tensor, "rows entries"]:
        """Return the relative residuals of rows of labels and orders."""
        problem, rows = self.problem, len(orders)
        parts = shared(
            problem.model,
            inputs.expand(rows, *problem.shape),
            one_hot(labels, problem.classes, problem.model.dtype),
            self.uses.shares(orders).to(problem.model.dtype),
            problem.local,
            differentiable=differentiable,
        )
        length = float(problem.observed.norm()) or 1.0
        return (flat(parts) / problem.unit - problem.observed) / length

    def of(self, it: Assignment) -> Residual:
        """Return the residual of inputs with an assignment."""
        return lambda x: self.residuals(x, it.labels[None], it.order[None], differentiable=True)[0]

    def each(self, inputs: Tensor, several: list[Assignment]) -> Float[Tensor, "rows entries"]:
        """Return the residuals of several assignments."""
        together = max(1, min(TOGETHER, ENTRIES // self.problem.observed.shape[1]))
        parts = [several[i : i + together] for i in range(0, len(several), together)]
        stacked = [
            (torch.stack([it.labels for it in part]), torch.stack([it.order for it in part]))
            for part in parts
        ]
        return torch.cat([self.residuals(inputs, *part).detach() for part in stacked])

    def nearby(self, it: Assignment, generator: Generator) -> list[Assignment]:
        """Return the assignments that are compared with one; of too many a random part."""
        ways = self.uses.nearby(it.order)
        moves = [(way,) for way in ways]
        if len(ways) <= PAIRS:
            moves += [pair for pair in combinations(ways, 2) if pair[0][0] != pair[1][0]]
        others = [Assignment(it.labels, _exchanged(it.order, move)) for move in moves]
        for place, label in enumerate(it.labels.tolist()):
            for other in range(self.problem.classes):
                if other != label:
                    labels = it.labels.clone()
                    labels[place] = other
                    others.append(Assignment(labels, it.order))
        if len(others) <= NEARBY:
            return others
        chosen = torch.randperm(len(others), generator=generator)[:NEARBY]
        return [others[place] for place in chosen.tolist()]


def assigned(
    uploads: Uploads,
    hypotheses: Int[Tensor, "hypotheses n"],
    start: Callable[[], Float[Tensor, "n *shape"]],
    generator: Generator,
    *,
    steps: int,
    starts: int,
    enough: float,
) -> tuple[Fitted, int]:
    """Return inputs, labels and order that explain an upload best, and how many starts were made.

    Args:
        uploads: What is matched.
        hypotheses: Labels that starts begin with, the likeliest first.
        start: Draws where inputs begin.
        generator: Of orders.
        steps: Gauss-Newton steps of each fit, at most.
        starts: At most.
        enough: Squared error, over the upload's square, at which no other start is made.
    """
    best: Fitted | None = None
    number = 0
    for number in range(starts):
        labels, begin = hypotheses[number % len(hypotheses)], start()
        first = Assignment(labels, uploads.uses.drawn(generator))
        with progress.part(f"start {number + 1} of {starts}"):
            for it in _from(uploads, begin, first, generator, steps=steps):
                best = it if best is None or it.error < best.error else best
        if best is not None and best.error <= enough:
            break
    assert best is not None
    return best, number + 1


def _from(
    uploads: Uploads,
    begin: Tensor,
    first: Assignment,
    generator: Generator,
    *,
    steps: int,
) -> list[Fitted]:
    """Return the fits from one start: with assignments that change, and again with the last."""
    x, it, error = exchanged(uploads, begin, first, generator, steps=steps)
    fits = [Fitted(Fit(x, error, steps), it)]
    if error <= NEAR:
        fits.append(Fitted(gauss_newton(uploads.of(it), x, steps=steps), it))
    elif math.isfinite(error):  # labels and order may be right, and the inputs stuck
        fits.append(Fitted(gauss_newton(uploads.of(it), begin, steps=min(steps, AGAIN)), it))
    return fits


def exchanged(
    uploads: Uploads, x: Tensor, it: Assignment, generator: Generator, *, steps: int
) -> tuple[Tensor, Assignment, float]:
    """Return inputs and an assignment after Gauss-Newton steps of both, and their error."""
    at, error = linearised(uploads.of(it), x)
    damping = DAMPING
    for step in range(steps):
        progress.report(step, steps, "Gauss-Newton steps")
        if not math.isfinite(error) or error <= torch.finfo(x.dtype).eps:
            break
        response, before = _Response(at, generator), error
        while damping < HOPELESS:
            response.damp(damping)
            other, right = _descended(uploads, x, it, response, generator)
            tried = (x + response.step(right)).clamp(-1.0, 2.0)
            trial, lower = linearised(uploads.of(other), tried)
            if lower < error:
                x, it, at, error = tried, other, trial, lower
                damping *= SHRINK
                break
            damping *= GROW
        if error > (1 - STALLED) * before:
            break
    return x, it, error


def _descended(
    uploads: Uploads, x: Tensor, it: Assignment, response: "_Response", generator: Generator
) -> tuple[Assignment, Float[Tensor, " entries"]]:
    """Return the assignment of which a step leaves least, by single changes, and its residual."""
    residual = uploads.each(x, [it])
    left = float(response.left(residual))
    for _ in range(EXCHANGES):
        others = uploads.nearby(it, generator)
        if not others:
            break
        residuals = uploads.each(x, others)
        errors = response.left(residuals).nan_to_num(nan=torch.inf)
        place = int(errors.argmin())
        if not float(errors[place]) < BETTER * left:
            break
        it, residual, left = others[place], residuals[place, None], float(errors[place])
    return it, residual[0]


class _Response:
    """What a damped step of the inputs does to residuals.

    Where the Jacobian is too large, a few directions that it is largest in stand for it, and the
    step is solved by conjugate gradients.
    """

    def __init__(self, at: Linearised, generator: Generator) -> None:
        self.at, self.whole = at, at.fits(LARGE)
        self.columns = at.columns() if self.whole else at.sketch(SKETCH, generator)
        self.gram = self.columns @ self.columns.T
        self.mean = float(self.gram.diagonal().mean()) if self.whole else at.curvature()

    def damp(self, damping: float) -> None:
        """Set the damping, of the mean curvature."""
        self.damping = damping * self.mean
        ridge = self.damping if self.whole else 0.0
        unit = torch.eye(len(self.gram), dtype=self.gram.dtype)
        self.factor = torch.linalg.cholesky_ex(self.gram + ridge * unit)[0]

    def left(self, residuals: Float[Tensor, "rows entries"]) -> Float[Tensor, " rows"]:
        """Return what a step leaves of squared errors."""
        right = self.columns @ residuals.T
        gained = torch.linalg.solve_triangular(self.factor, right, upper=False)
        return residuals.square().sum(dim=1) - gained.square().sum(dim=0)

    def step(self, residual: Float[Tensor, " entries"]) -> Tensor:
        """Return the step."""
        if not self.whole:
            return self.at.solve(-self.at.pull(residual), self.damping, LARGE)
        right = self.columns @ residual
        return -torch.cholesky_solve(right[:, None], self.factor)[:, 0].view_as(self.at.x)


def _exchanged(
    order: Float[Tensor, "epochs steps n"], move: tuple[tuple[int, Tensor], ...]
) -> Float[Tensor, "epochs steps n"]:
    """Return an order with these epochs' orders in it."""
    other = order.clone()
    for epoch, way in move:
        other[epoch] = way
    return other
