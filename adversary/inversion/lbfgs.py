"""L-BFGS of many rows at once, each by itself with its own line search.

One evaluation serves all rows. A row whose step is refused tries a shorter one at the next
evaluation, while others go on from where they are: no row waits, and none has a say in another's
direction.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adversary.inversion.descent import Best, Evaluate
from fedsim.core import progress

DECREASE = 1e-4  # Armijo: share of the slope's promise that a step must keep
REFUSALS = 12  # in a row, until what was learned of the curvature is forgotten


def lbfgs(
    evaluate: Evaluate,
    start: Float[Tensor, "rows n"],
    *,
    steps: int,
    history: int = 100,
) -> Best:
    """L-BFGS with backtracking to a sufficient decrease.

    Source: Byrd, Nocedal, Schnabel, "Representations of quasi-Newton matrices and their use in
    limited memory methods", 1994, Eq. 3.1: the two-loop recursion in a handful of matrix products,
    because 200 small operations would cost more than the loss. A pair without positive curvature
    is left out, because no step is asked to meet the second condition of Wolfe. A row stops where
    even the steepest descent finds nothing lower.

    Args:
        evaluate: The losses.
        start: Where each row begins.
        steps: Evaluations, refused steps included.
        history: Pairs of steps and gradient differences that are remembered.
    """
    best = Best.of(start)
    losses, g = evaluate(start)
    best.see(start, losses)
    pairs = _Pairs.of(start, history)
    v, refused = start.clone(), torch.zeros(len(start), dtype=torch.long)
    d, size = -g, _first(g)
    for _ in progress.steps(steps - 1, "iterations"):
        if bool((size == 0).all()):
            break
        trial = v + size.unsqueeze(1) * d
        new, slope = evaluate(trial)
        best.see(trial, new)
        promised = size * _dot(g, d)
        taken = new <= losses + DECREASE * promised  # never where NaN
        pairs.add(trial - v, slope - g, taken)
        shrink = _shrink(new - losses, promised)
        refused = torch.where(taken, 0, refused + 1)
        v = torch.where(taken.unsqueeze(1), trial, v)
        losses, g = torch.where(taken, new, losses), torch.where(taken.unsqueeze(1), slope, g)
        stuck = refused >= REFUSALS
        done = stuck & (pairs.count == 0)
        pairs.forget(stuck)
        turned = taken | stuck
        direction, begin = _turn(pairs, g)
        d = torch.where(turned.unsqueeze(1), direction, d)
        size = torch.where(turned, begin, size * shrink)
        refused = torch.where(stuck, 0, refused)
        size = torch.where(done, 0.0, size)
    return best


def _shrink(rise: Float[Tensor, " rows"], promised: Float[Tensor, " rows"]) -> Tensor:
    """Return by how much to shorten a refused step, between a tenth and a half.

    To the lowest point of the parabola through both losses and the slope.
    """
    dip = -promised / (2 * (rise - promised))
    return dip.nan_to_num(0.1, 0.1, 0.1).clamp(0.1, 0.5)


def _turn(pairs: "_Pairs", g: Float[Tensor, "rows n"]) -> tuple[Tensor, Tensor]:
    """Return the direction from a new point, which goes downhill, and the first step's size."""
    direction = pairs.direction(g)
    downhill = _dot(g, direction) < 0
    size = torch.where((pairs.count > 0) & downhill, 1.0, _first(g))
    return torch.where(downhill.unsqueeze(1), direction, -g), size


@dataclass(kw_only=True)
class _Pairs:
    """The last steps s and gradient differences y of each row, in rings of their own.

    Attributes:
        s: Shape (rows, history, n).
        y: Shape (rows, history, n).
        sy: ⟨sᵢ, yⱼ⟩ where j is not older than i, float64, shape (rows, history, history).
        yy: ⟨yᵢ, yⱼ⟩, float64.
        newest: Place in its ring, shape (rows,).
        count: How many a row has, shape (rows,).
    """

    s: Tensor
    y: Tensor
    sy: Tensor
    yy: Tensor
    newest: Tensor
    count: Tensor

    @classmethod
    def of(cls, start: Tensor, history: int) -> "_Pairs":
        rows, n = start.shape
        ring = start.new_zeros(rows, history, n)
        products = torch.zeros(rows, history, history, dtype=torch.float64)
        none = torch.zeros(rows, dtype=torch.long)
        return cls(
            s=ring,
            y=ring.clone(),
            sy=products,
            yy=products.clone(),
            newest=none,
            count=none.clone(),
        )

    def add(self, s: Tensor, y: Tensor, accepted: Bool[Tensor, " rows"]) -> None:
        """Remember a pair in the rows that want it, where its curvature is positive."""
        accepted = accepted & (_dot(s, y) > 1e-10 * s.norm(dim=1) * y.norm(dim=1))
        rows = accepted.nonzero()[:, 0]
        if not len(rows):
            return
        place = (self.newest[rows] + 1) % self.s.shape[1]
        self.s[rows, place], self.y[rows, place] = s[rows], y[rows]
        self.newest[rows] = place
        self.count[rows] = (self.count[rows] + 1).clamp(max=self.s.shape[1])
        with_s, with_y = (_products(ring, y)[rows] for ring in (self.s, self.y))
        self.sy[rows, :, place] = with_s.double()
        self.yy[rows, :, place] = with_y.double()
        self.yy[rows, place, :] = with_y.double()

    def forget(self, rows: Bool[Tensor, " rows"]) -> None:
        """Begin anew."""
        self.count[rows] = 0

    def direction(self, g: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
        """Return −H·g."""
        most = int(self.count.max())
        if not most:
            return -g
        rows = torch.arange(len(g)).unsqueeze(1)
        order = (self.newest.unsqueeze(1) - torch.arange(most).flip(0)) % self.s.shape[1]
        filled = (torch.arange(most).flip(0) < self.count.unsqueeze(1)).double()
        filled_pairs = filled.unsqueeze(2) * filled.unsqueeze(1)
        ordered = rows.unsqueeze(2), order.unsqueeze(2), order.unsqueeze(1)
        sy, yy = self.sy[ordered] * filled_pairs, self.yy[ordered] * filled_pairs
        diagonal = sy.diagonal(dim1=1, dim2=2)
        upper = sy.triu() + torch.diag_embed(1 - filled)
        scale = (diagonal[:, -1] / yy[:, -1, -1]).nan_to_num(1.0).unsqueeze(1)
        with_s, with_y = (
            _products(ring, g)[rows, order].double() * filled for ring in (self.s, self.y)
        )
        u = torch.linalg.solve_triangular(upper, with_s.unsqueeze(2), upper=True)
        right = diagonal.unsqueeze(2) * u + scale.unsqueeze(2) * (
            torch.bmm(yy, u) - with_y.unsqueeze(2)
        )
        top = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        of_s, of_y = (
            torch.zeros(len(g), 1, self.s.shape[1], dtype=g.dtype).index_put_(
                (rows, torch.zeros_like(order), order), value.to(g.dtype)
            )
            for value in (top[..., 0] * filled, scale * u[..., 0] * filled)
        )
        moved = torch.bmm(of_s, self.s) - torch.bmm(of_y, self.y)
        return -(scale.to(g.dtype) * g + moved[:, 0])


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, " rows"]:
    return torch.linalg.vecdot(a, b)


def _products(ring: Float[Tensor, "rows m n"], v: Float[Tensor, "rows n"]) -> Tensor:
    """Return every row's matrix times its vector; `torch.bmm` takes ten times as long."""
    return torch.stack([matrix @ column for matrix, column in zip(ring, v, strict=True)])


def _first(g: Float[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
    """Return how far to go along −g where nothing is known of the curvature, as torch does."""
    return (1 / g.abs().sum(dim=1).clamp(min=1e-30)).clamp(max=1.0)
