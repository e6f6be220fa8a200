"""Search for a batch's directions by sparsely-used dictionary learning.

The rows of a weight gradient are D·P with one column of D per example, zero where ReLU is off. A
direction q for which rows·q is sparse is, up to scale, a column of P⁻¹ (D. Spielman, H. Wang, J.
Wright, "Exact recovery of sparsely-used dictionaries", COLT 2012). It is a local minimum of the l1
norm over the sphere once rows are whitened (J. Sun, Q. Qu, J. Wright, "Complete dictionary recovery
over the sphere", IEEE Trans. Inf. Theory 2017; Y. Bai, Q. Jiang, J. Sun, "Subgradient descent
learns orthogonal dictionaries", ICLR 2019).

From random starts this does not end at examples: columns of one class resemble each other, so that
the difference of two of them is sparser than both. Therefore:

- l1 is taken over the units that are furthest below zero at a guessed input, where an example that
  is near has almost only zeros, whereas the norm is that over all units.
- The zeros of a minimum that is no example's are separated from the other units by a hyperplane,
  whose normal is the next guess. The zeros of a difference are no half-space, so that this moves to
  an example.
- Examples that are known are deflated: q is orthogonal to estimates of their inputs, and the next
  input to their directions. The problem shrinks with each.
"""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from adversary.inversion.half_spaces import separating
from adversary.inversion.inactive import CUT, NEWTON, STEP, TINY, WRONG, Search, zeros

TRIES = 4  # guesses from one start
STEPS = 4  # of Newton's method for a guess
DRY = 30  # starts without a direction until rows are drawn
FEW = 8  # units, times B, below which rows are drawn from the start
LOWEST, MOST = 5, 0.45  # units furthest below zero: times B, and at most this share
LEFT, LEAST = 4, 1.5  # of these, first times the directions left, times B at least
SOFT = 0.3  # of the median product: what a guess takes for zero
SPREAD = 3.0  # noise of a direction, of that in a row
NEAR = 0.2  # share of units that the nearest hyperplane may have on the wrong side
SAME = 0.999  # cosine of two columns from which on they are one example's
FIRST, SECOND = (0.3, 12), (0.05, 10)  # smoothing of l1 at the start, and iterations
FINE = 1e-6  # smoothing at the end
JITTER = 1e-13
STARTS = 4  # that an example took at B = 128 and 2,000 units


def operations(count: int) -> float:
    """Return about how many floating-point operations a batch takes that is solved.

    Args:
        count: Number of examples, B; units are taken to be 16 times as many.
    """
    norms = 2 * (LEFT * FIRST[1] + LOWEST * SECOND[1])
    hyperplanes = 2 * 16 * STEPS
    return float(STARTS * TRIES * (norms + hyperplanes)) * count**4


class Dictionary:
    """Learns directions one after the other, and leaves them in a search.

    Inputs are held in the coordinates of the search's features: outputs are features·w.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        features = search.features
        self.into = features.T @ search.outputs / len(features)
        self.back = torch.linalg.pinv(self.into)
        self.one = search.one @ self.back
        self.mean = self.into @ search.mean
        self.ratios = search.ratios @ self.into.T
        self.estimates: dict[bytes, Tensor] = {}

    def step(self, generator: Generator) -> None:
        """Try from one start; draw rows where many starts in a row added nothing."""
        search, before = self.search, len(self.search.directions)
        if search.since >= DRY or len(search.rows) < FEW * len(search.values):
            search.step(generator)
        search.draws += 1
        if len(search.directions) < len(search.values):
            self._try(generator)
        search.since = 0 if len(search.directions) > before else search.since + 1

    def _try(self, generator: Generator) -> None:
        guess, free = self._start(generator), self._free()
        for _ in range(TRIES):
            first, direction = self._sparsest(guess, free)
            products = (self.search.whitened @ direction).abs()
            level = CUT * SPREAD * (direction / self.search.values).norm()
            zero = zeros(products, level.expand_as(products))
            if int(zero.sum()) <= len(direction) + 2:
                zero = self._soft(products)
            elif self._is_known(self.search.whitened @ direction):
                zero = self._soft((self.search.whitened @ first).abs())
            elif self._kept(zero):
                return
            guess = self._allowed(self._normal(zero, STEPS))

    def _start(self, generator: Generator) -> Float[Tensor, " b"]:
        """Return a guess near the mean input, a step towards a unit's own ratios from it."""
        unit = torch.randint(len(self.ratios), (1,), generator=generator)
        share = torch.rand(1, generator=generator, dtype=self.mean.dtype)
        start = self._allowed(self.mean)
        step = self._allowed(self.ratios[unit][0]) - start
        return start + share * step * (STEP * start.norm() / step.norm().clamp(min=TINY)).clamp(
            max=1
        )

    def _allowed(self, guess: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the nearest input with a last entry of 1 on which known directions vanish."""
        constraints = torch.cat([self.search.directions @ self.back, self.one[None]])
        lacking = -constraints @ guess
        lacking[-1] += 1
        return guess + torch.linalg.pinv(constraints) @ lacking

    def _free(self) -> Float[Tensor, "b k"]:
        """Return an orthonormal basis of what is orthogonal to the known examples' inputs.

        The estimate of an input is made orthogonal to all directions but its own.
        """
        search = self.search
        if not len(search.directions):
            return torch.eye(len(search.values), dtype=search.rows.dtype)
        inputs = torch.stack([self._estimate(zero) for zero in search.inactive])
        constraints = search.directions @ self.back
        lacking = -inputs @ constraints.T
        lacking.fill_diagonal_(0.0)
        inputs = inputs + lacking @ torch.linalg.pinv(constraints).T
        points = inputs @ self.back.T / search.values
        return torch.linalg.qr(points.T, mode="complete")[0][:, len(points) :]

    def _estimate(self, inactive: Bool[Tensor, " m"]) -> Float[Tensor, " b"]:
        key = inactive.numpy().tobytes()
        if key not in self.estimates:
            self.estimates[key] = self._normal(inactive, NEWTON)
        return self.estimates[key]

    def _normal(self, zero: Bool[Tensor, " m"], steps: int) -> Float[Tensor, " b"]:
        """Return the input that is inactive on these units and no others, or is near it."""
        features = self.search.features
        start = features.T @ (1 - 2 * zero.to(features.dtype)) * (2 / len(features))
        weights = separating(features, zero, start, steps=steps)
        return self._scaled(weights)

    def _scaled(self, weights: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        last = weights @ self.one
        return weights / last if float(last) > TINY else weights

    def _sparsest(
        self, guess: Float[Tensor, " b"], free: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Return the free direction of least l1 norm, and the one of all next to it."""
        search, (rank, left) = self.search, free.shape
        most = max(1, min(LOWEST * rank, int(MOST * len(search.rows))))
        lowest = (search.features @ guess).topk(most, largest=False).indices
        rows = search.units[lowest]
        first = max(int(LEFT * left), int(LEAST * rank))
        within = rows[:first] @ free
        start = torch.linalg.eigh(within.T @ within)[1][:, 0]
        direction = free @ _least(within, start, *FIRST)
        return direction, _least(rows, direction, *SECOND)

    def _soft(self, products: Float[Tensor, " m"]) -> Bool[Tensor, " m"]:
        return products < SOFT * products.median()

    def _is_known(self, column: Float[Tensor, " m"]) -> bool:
        if not len(self.search.directions):
            return False
        columns = self.search.rows @ self.search.directions.T
        cosines = column @ columns / columns.norm(dim=0) / column.norm()
        return float(cosines.abs().max()) > SAME

    def _kept(self, zero: Bool[Tensor, " m"]) -> bool:
        """Add the direction that these rows determine, if an input has its zeros there."""
        search = self.search
        features = search.features
        near = features.T @ (1 - 2 * zero.to(features.dtype))
        if float(((features @ near < 0) != zero).double().mean()) > NEAR:
            return False
        refined = search.refined(zero)
        if refined is None:
            return False
        direction, inactive = refined
        weights = self._estimate(inactive)
        wrong = ((features @ weights < 0) != inactive).double().mean()
        if float(wrong) > WRONG or self._is_known(search.rows @ direction):
            return False
        return search.add(direction, inactive)


def _least(
    rows: Float[Tensor, "n b"], direction: Float[Tensor, " b"], smooth: float, iterations: int
) -> Float[Tensor, " b"]:
    """Return a direction of least l1 norm near another, by inverse iterations with weights."""
    for _ in range(iterations):
        products = rows @ direction
        size = (smooth * products.square().mean().sqrt()).clamp(min=TINY)
        weighted = rows.T / (products.square() + size**2).sqrt() @ rows
        weighted.diagonal().add_(JITTER * weighted.diagonal().max())
        factor, failed = torch.linalg.cholesky_ex(weighted)
        if int(failed):
            return direction
        for _ in range(2):
            direction = torch.cholesky_solve(direction[:, None], factor)[:, 0]
            direction = direction / direction.norm()
        smooth = max(smooth / 2, FINE)
    return direction
