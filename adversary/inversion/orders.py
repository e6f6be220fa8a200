"""Local steps on batches smaller than a client's data: who was in which step is fitted, too.

fedsim's own. A client puts its examples into a new order in every epoch, which the server does not
see. With a wrong order nothing comes back where the learning rate is large, and there are
(N!/(B!)^(N/B))^E orders. D. I. Dimitrov, M. Balunović, N. Konstantinov, M. Vechev, "Data Leakage in
Federated Averaging", TMLR 2022, give every epoch pictures of its own and pull them together by a
prior that does not depend on order; here pictures are shared by all epochs.

Idea: the loss of a step is linear in the examples' shares of it. Shares of an example in the steps
of an epoch may be any that sum to 1, and are fitted beside the inputs by Gauss-Newton steps,
beginning with even ones. A few steps tell right labels from wrong ones. The answer is rounded to
the nearest order by optimal assignment. If that does not explain the upload, orders are ranked by
the error that one more linear step would leave, and the first are fitted.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice, product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.inversion.joint import Fit, Residual, gauss_newton, jacobian
from adversary.inversion.local_steps import flat, one_hot, shared
from adversary.inversion.problems import Problem
from fedsim.core.types import LocalTraining

RACE, DRAFT = 6, 12  # Gauss-Newton steps with free shares: of all labels, then of the best
SEARCHED = 2  # such drafts from which orders are searched
ROUNDS, FITTED = 3, 3  # of such a search, and orders that are fitted in each
FITS = 4 + ROUNDS * FITTED  # from one start, at most
ORDERS = 600  # that are ranked at a time; of more, those that differ in one epoch
ARRANGED = 64  # ways to fill the steps of one epoch; of more, those that swap two examples
TOGETHER = 32  # orders that are simulated at a time
ENTRIES = 2**22  # of their uploads
RIDGE = 1e-4  # of the mean curvature, in the linear step

Start = Callable[[], Float[Tensor, "n *shape"]]


@dataclass(frozen=True, eq=False)
class Uses:
    """Which steps a client's examples may be used in.

    An order is a tensor (epochs, steps of one, examples) of zeros and ones.

    Attributes:
        count: Examples.
        local: The protocol.
    """

    count: int
    local: LocalTraining

    @cached_property
    def sizes(self) -> Float[Tensor, " steps"]:
        """Examples of each step of an epoch."""
        left = torch.arange(self.count, 0, -self.local.batch_size)
        return left.clamp(max=self.local.batch_size).double()

    def even(self) -> Float[Tensor, " free"]:
        """Return the free numbers of shares that are all alike."""
        rows = (self.sizes[:-1, None] / self.count).expand(-1, self.count - 1)
        return rows.expand(self.local.epochs, *rows.shape).flatten()

    def filled(self, free: Float[Tensor, " free"]) -> Float[Tensor, "epochs steps n"]:
        """Return how much of each example is used in each step, of numbers that may be anything.

        Each example is used once an epoch, and each step uses as many as it holds.
        """
        uses = free.view(self.local.epochs, len(self.sizes) - 1, self.count - 1)
        last = self.sizes[:-1, None] - uses.sum(dim=2, keepdim=True)
        uses = torch.cat([uses, last], dim=2)
        return torch.cat([uses, 1 - uses.sum(dim=1, keepdim=True)], dim=1)

    def shares(self, uses: Float[Tensor, "*rows epochs steps n"]) -> Float[Tensor, "*rows all n"]:
        """Return the shares of the loss of all steps."""
        return (uses / self.sizes[:, None]).flatten(-3, -2)

    def nearest(self, uses: Float[Tensor, "epochs steps n"]) -> Float[Tensor, "epochs steps n"]:
        """Return the order of which uses have the most."""
        from scipy.optimize import linear_sum_assignment

        places = torch.arange(len(self.sizes)).repeat_interleave(self.sizes.long())
        order = torch.zeros_like(uses)
        for part, whole in zip(order, uses.detach(), strict=True):
            rows, columns = linear_sum_assignment(-whole[places].numpy())
            part[places[torch.as_tensor(rows)], torch.as_tensor(columns)] = 1
        return order

    def neighbours(
        self, order: Float[Tensor, "epochs steps n"]
    ) -> Float[Tensor, "orders epochs steps n"]:
        """Return all orders where these are few, else up to `ORDERS` that differ in one epoch."""
        ways = list(islice(_arranged(self.sizes.long().tolist(), self.count), ARRANGED + 1))
        many, epochs = len(ways) > ARRANGED, self.local.epochs
        if not many and len(ways) ** epochs <= ORDERS:
            return torch.stack([torch.stack(of) for of in product(ways, repeat=epochs)])
        others = []
        for epoch in range(epochs):
            nearby = _swapped(order[epoch]) if many else ways
            for way in islice(nearby, max(1, ORDERS // epochs)):
                other = order.clone()
                other[epoch] = way
                others.append(other)
        return torch.stack(others or [order])


def _arranged(sizes: list[int], count: int) -> Iterator[Float[Tensor, "steps n"]]:
    """Yield all ways to fill steps of these sizes."""

    def filled(left: tuple[int, ...], step: int, way: Tensor) -> Iterator[Tensor]:
        if step == len(sizes):
            yield way
            return
        for chosen in combinations(left, sizes[step]):
            longer = way.clone()
            longer[step, list(chosen)] = 1
            yield from filled(tuple(i for i in left if i not in chosen), step + 1, longer)

    yield from filled(tuple(range(count)), 0, torch.zeros(len(sizes), count).double())


def _swapped(way: Float[Tensor, "steps n"]) -> Iterator[Float[Tensor, "steps n"]]:
    """Yield the ways in which two examples of different steps change places."""
    steps = way.argmax(dim=0)
    for a, b in combinations(range(way.shape[1]), 2):
        if steps[a] != steps[b]:
            other = way.clone()
            other[:, [a, b]] = way[:, [b, a]]
            yield other


@dataclass(frozen=True, eq=False)
class _Case:
    """An upload with labels of the examples.

    Attributes:
        problem: What is matched, float64.
        targets: Probabilities of classes, (n, classes).
        uses: Which steps there are.
        start: Where inputs begin.
        steps: Gauss-Newton steps of a fit.
    """

    problem: Problem
    targets: Tensor
    uses: Uses
    start: Tensor
    steps: int

    def residuals(self, inputs: Tensor, uses: Tensor, *, differentiable: bool) -> Tensor:
        """Return the relative residuals of rows of uses, (rows, entries)."""
        problem, rows = self.problem, len(uses)
        parts = shared(
            problem.model,
            inputs.expand(rows, *problem.shape),
            self.targets.expand(rows, *self.targets.shape),
            self.uses.shares(uses),
            problem.local,
            differentiable=differentiable,
        )
        length = float(problem.observed.norm()) or 1.0
        return (flat(parts) / problem.unit - problem.observed) / length

    def of(self, order: Tensor) -> Residual:
        """Return the residual in one order."""
        return lambda x: self.residuals(x, order[None], differentiable=True)[0]

    def loosely(self, point: Tensor, steps: int) -> Fit:
        """Return inputs and free numbers of uses that are fitted together, side by side."""

        def residual(point: Tensor) -> Tensor:
            inputs, filled = self.parts(point)
            return self.residuals(inputs, filled[None], differentiable=True)[0]

        return gauss_newton(residual, point, steps=min(steps, self.steps))

    def parts(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and the uses."""
        inputs, free = point.split([self.start.numel(), len(point) - self.start.numel()])
        return inputs.view_as(self.start), self.uses.filled(free)

    def ordered(self, order: Tensor, start: Tensor) -> "_Ordered":
        """Return the inputs fitted in one order."""
        return _Ordered(gauss_newton(self.of(order), start, steps=self.steps), order)

    def left(self, orders: Tensor, inputs: Tensor, order: Tensor) -> Float[Tensor, " orders"]:
        """Return the error of each order, less what a linear step in one order would take off."""
        columns = jacobian(self.of(order), inputs)
        together = max(1, min(TOGETHER, ENTRIES // self.problem.observed.shape[1]))
        errors = []
        for part in orders.split(together):
            apart = self.residuals(inputs, part, differentiable=False).detach()
            errors.append(apart.square().sum(dim=1))
            if columns is not None:
                gram = columns @ columns.T
                ridge = RIDGE * gram.diagonal().mean()
                factor = torch.linalg.cholesky_ex(gram + ridge * torch.eye(len(gram)).double())[0]
                gained = torch.linalg.solve_triangular(factor, columns @ apart.T, upper=False)
                errors[-1] = errors[-1] - gained.square().sum(dim=0)
        return torch.cat(errors).nan_to_num(nan=torch.inf)


@dataclass(frozen=True, eq=False)
class _Ordered:
    """Inputs fitted in an order.

    Attributes:
        fit: The inputs and their error.
        order: Shape (epochs, steps, n).
    """

    fit: Fit
    order: Tensor

    @property
    def error(self) -> float:
        """That of the fit; infinite where it has none."""
        return _finite(self.fit.error)


def any_order(
    problem: Problem,
    hypotheses: Int[Tensor, "hypotheses n"],
    start: Start,
    *,
    steps: int,
    restarts: int,
    enough: float,
) -> tuple[Fit, int]:
    """Return inputs that explain an upload best in any order, and the place of their labels.

    Args:
        problem: What is matched, float64.
        hypotheses: Labels of the examples, the likeliest first.
        start: Draws where inputs begin.
        steps: Gauss-Newton steps of each fit, at most.
        restarts: Starts with each of the labels.
        enough: Squared error, over the upload's square, at which no other answer is tried.
    """
    uses = Uses(problem.shape[0], problem.local)
    raced = list[tuple[Fit, _Case, int]]()
    for place, labels in enumerate(hypotheses):
        targets = one_hot(labels, problem.classes, problem.model.dtype)
        for _ in range(restarts):
            case = _Case(problem, targets, uses, start(), steps)
            point = torch.cat([case.start.flatten(), uses.even()])
            raced.append((case.loosely(point, RACE), case, place))
    raced.sort(key=lambda it: _finite(it[0].error))
    best, where = None, 0
    for loose, case, place in raced[:SEARCHED]:
        answer = _searched(case, case.loosely(loose.inputs, DRAFT), enough)
        if best is None or answer.error < best.error:
            best, where = answer, place
        if best.error <= enough:
            break
    assert best is not None
    return best.fit, where


def _searched(case: _Case, loose: Fit, enough: float) -> _Ordered:
    """Return the best fit in the order nearest to free uses, and in those around it."""
    inputs, filled = case.parts(loose.inputs)
    best = case.ordered(case.uses.nearest(filled), inputs)
    tried, fresh = [best.order], False
    for _ in range(ROUNDS):
        if best.error <= enough:
            break
        before, base = best.error, best.fit.inputs if best.error < loose.error else inputs
        orders = case.uses.neighbours(best.order)
        ranked = orders[case.left(orders, base, best.order).argsort(stable=True)]
        new = [it for it in ranked if not any(torch.equal(it, other) for other in tried)][:FITTED]
        tried += new
        for order in new:
            best = min(best, case.ordered(order, base), key=lambda it: it.error)
            if best.error <= enough:
                return best
        if best.error == before and not fresh:  # the order may be right and the inputs stuck
            fresh = True
            best = min(best, case.ordered(best.order, case.start), key=lambda it: it.error)
        if best.error == before:
            break
    return best


def _finite(error: float) -> float:
    return error if math.isfinite(error) else math.inf
