"""A whole batch of inputs of a fully connected ReLU layer, exact.

D. I. Dimitrov, M. Baader, M. N. Müller, M. Vechev, "SPEAR: exact gradient inversion of batches in
federated learning", NeurIPS 2024. The weight gradient DᵀX, with dL/dz of the examples in D, has
rank B; of all ways to take it apart, the true one has a zero in D wherever an example is not
active, which no other combination has.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from adversary.inversion.dictionary import Dictionary
from adversary.inversion.inactive import CUT, Search
from adversary.inversion.low_rank import Factors, factors
from fedsim.core import progress

DRAWS = 20_000
LEAST = 2_000  # draws before an estimate ends the search
OPEN = 0.05  # share of an input's active units whose slope may be too small to be told from 0
MARGIN = 1e-4  # of an input's outputs: so near zero a unit may be active
REPAIRS = 3
LARGEST = 1 / 3  # share of the units whose ratios guess the mean input


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of a batch.

    Attributes:
        inputs: Shape (B, features).
        slopes: dL/dz of each unit and example, shape (units, B); 0 where the example is inactive.
        draws: How many were made.
    """

    inputs: Float[Tensor, "b features"]
    slopes: Float[Tensor, "units b"]
    draws: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a search ends.

    Attributes:
        draws: At most so many; it ends before where the estimate exceeds what is left.
        seconds: CPU time, at most; 0 for any. The answer then depends on the machine.
    """

    draws: int = DRAWS
    seconds: float = 0.0


class UnfinishedError(ValueError):
    """A search ended at its limits.

    Attributes:
        inactive: On which units each example that was found is inactive, shape (k, units).
        draws: How many were made, those of earlier searches included.
    """

    def __init__(self, sentence: str, inactive: Bool[Tensor, "k units"], draws: int) -> None:
        super().__init__(sentence)
        self.inactive, self.draws = inactive, draws


def batch(
    gradient: Float[Tensor, "units n"],
    weight: Float[Tensor, "units n"],
    count: int,
    generator: Generator,
    *,
    limits: Limits | None = None,
    earlier: tuple[Bool[Tensor, "k units"], int] | None = None,
    learn: bool = False,
) -> Batch:
    """Return all inputs of a ReLU layer's batch, exact, in any order.

    Args:
        gradient: dL/dW and, as its last column, dL/db; float64.
        weight: W and b in the same form.
        count: Number of examples, B.
        generator: Draws the units that are taken to be inactive.
        limits: Of the search.
        earlier: What an unfinished search of the same gradient had: `inactive` and `draws`.
        learn: Whether directions are learned as a dictionary before rows are drawn.

    Raises:
        UnfinishedError: The search ended.
        ValueError: The rank of the gradient is another, or no slopes with the zeros that the
            inputs give make up the gradient.
    """
    parts = factors(gradient, count, generator)
    weight = weight[parts.alive]
    search = Search(parts, weight, mean_input(gradient[parts.alive]))
    if earlier is not None:
        search.replace(earlier[0][:, parts.alive])
        search.draws = earlier[1]
    if count > 1:
        step = Dictionary(search).step if learn else search.step
        _run(search, parts, weight, partial(step, generator), limits or Limits())
    inputs, inactive = _solved(parts, search)
    if not bool(inputs.isfinite().all()):
        raise ValueError("update: slopes of biases must not cancel, got a sum of 0 for an input")
    _check_product(parts, inputs @ parts.right.T, inactive)
    slopes = torch.linalg.lstsq(inputs.T, gradient[parts.alive].T).solution.T
    exact = gradient.new_zeros(len(gradient), count)
    exact[parts.alive] = slopes * ~inactive.T
    return Batch(inputs[:, :-1], exact, search.draws)


def mean_input(gradient: Float[Tensor, "m n"]) -> Float[Tensor, " n"]:
    """Return a guess of the mean input: the median ratio of the units with the largest slopes."""
    slope = gradient[:, -1]
    largest = slope.abs().argsort(descending=True)[: max(1, math.ceil(LARGEST * len(slope)))]
    divisor = slope.where(slope != 0, 1.0)[largest, None]
    return (gradient[largest] / divisor).median(dim=0).values


def expected_draws(inactive: Tensor, units: int) -> float:
    """Return how many draws of any B − 1 rows SPEAR needs on average until it has all directions.

    A draw ends at example j with the probability p_j that all its rows are inactive for j,
    C(k_j, B−1)/C(m, B−1). The expected maximum of B exponential waiting times is
    ∫ 1 − ∏_j (1 − exp(−p_j t)) dt.

    Args:
        inactive: Of how many of the rows each example is inactive, k_j, shape (B,).
        units: Number of rows, m.
    """
    rank = len(inactive)
    if rank < 2:
        return 0.0
    rows = torch.arange(rank - 1, dtype=torch.float64)
    left = (inactive.double()[:, None] - rows).clamp(min=0)
    log = (left / (units - rows)).log().sum(dim=1)
    if not bool(log.isfinite().all()):
        return math.inf
    rarest = float(log.min())
    grid = torch.linspace(-40, 5, 4001, dtype=torch.float64)  # of log(t·p), p of the rarest
    lacking = 1 - (1 - (-(log[:, None] - rarest + grid).exp()).exp()).prod(dim=0)
    return float(torch.trapezoid(lacking * grid.exp(), grid)) * math.exp(-rarest)


def _run(
    search: Search, parts: Factors, weight: Tensor, step: Callable[[], None], limits: Limits
) -> None:
    """Search until there is a direction per example, and inputs and zeros agree."""
    rank, begun = len(search.values), time.process_time()
    while True:
        if len(search.directions) >= rank - 1 and search.complete():
            agreeing = _agreeing(search, parts, weight)
            if bool(agreeing.all()):
                return
            search.forget(agreeing)
        progress.report(search.draws, limits.draws, "draws")
        expected = search.remaining()
        late = 0 < limits.seconds < time.process_time() - begun
        over = search.draws >= LEAST and search.draws + expected > limits.draws
        if late or over or search.draws >= limits.draws:
            inactive = torch.zeros(len(search.inactive), len(parts.alive), dtype=torch.bool)
            inactive[:, parts.alive] = search.inactive
            spent = f" and {limits.seconds:g} CPU-seconds" if late else ""
            raise UnfinishedError(
                f"search: {len(inactive)} of {rank} examples' zeros in {search.draws} draws{spent}"
                f"; the others are estimated to take {expected:.0f} more, of {limits.draws} "
                "allowed",
                inactive,
                search.draws,
            )
        step()


def _agreeing(search: Search, parts: Factors, weight: Tensor) -> Bool[Tensor, " b"]:
    """Return whose zeros are those that the inputs give, after repairs by the inputs' own."""
    for _ in range(REPAIRS):
        outputs = _solved(parts, search)[0] @ weight.T
        agreeing = _agree(outputs, search.inactive)
        if bool(agreeing.all()):
            return agreeing
        before = search.directions, search.inactive
        search.replace(outputs < 0)
        if len(search.directions) < len(agreeing):
            search.directions, search.inactive = before
            return agreeing
    return _agree(_solved(parts, search)[0] @ weight.T, search.inactive)


def _agree(outputs: Float[Tensor, "b m"], inactive: Bool[Tensor, "b m"]) -> Bool[Tensor, " b"]:
    """Return which inputs are inactive on units whose slopes are zero, and active on others."""
    active = outputs > 0
    margin = MARGIN * outputs.square().mean(dim=1, keepdim=True).sqrt()
    wrong = ((outputs < -margin) & ~inactive).any(dim=1)
    lost = (active & inactive).sum(dim=1) > OPEN * active.sum(dim=1)
    return ~(wrong | lost)


def _solved(parts: Factors, search: Search) -> tuple[Float[Tensor, "b n"], Bool[Tensor, "b m"]]:
    """Return inputs, with a last entry of 1, and the rows on which each is inactive."""
    if len(parts.values) == 1:
        points, inactive = parts.rows.new_ones(1, 1), parts.rows.new_zeros(1, len(parts.rows)) > 0
    else:
        inactive = search.inactive
        slopes = (parts.rows @ search.directions.T).masked_fill(inactive.T, 0.0)
        points = torch.linalg.lstsq(slopes, parts.rows).solution
    return (points / (points @ parts.right[:, -1:])) @ parts.right, inactive


def _check_product(
    parts: Factors, points: Float[Tensor, "b b"], inactive: Bool[Tensor, "b m"]
) -> None:
    """Refuse inputs of which no slopes with these zeros give the gradient's rows."""
    slopes = torch.linalg.lstsq(points.T, parts.rows.T).solution.T
    bounds = ((slopes * inactive.T) @ points).norm(dim=1)  # what dropping these slopes changes
    unclear = ~(bounds <= CUT * len(points))
    worst = 0.0
    for row, zero in zip(parts.rows[unclear], inactive.T[unclear], strict=True):
        active = points[~zero]
        if len(active):
            fit = torch.linalg.lstsq(active.T, row[:, None]).solution[:, 0] @ active
            worst = max(worst, float((row - fit).norm()))
        else:
            worst = math.inf
    if worst > CUT * len(points):
        raise ValueError(f"update: inputs must give the gradient, got {worst:.2g} noise levels off")
