"""Search for the directions that are orthogonal to all rows on which an example is inactive.

A row of the gradient lies in the span of the examples that are active on its unit. B − 1
independent rows on which example j is inactive therefore determine a direction q, orthogonal to
them and to every other row on which j is inactive (Dimitrov et al., SPEAR, NeurIPS 2024). Its
draws take any rows, all of which lack j with a probability of about 2^(1−B). Here draws are guided:

- A ReLU's unit is inactive where w·x + b < 0. Natural pictures resemble each other, so that units
  far below zero at a guessed input are inactive for most examples. Rows are drawn in that order,
  with noise of several sizes in it.
- Rows that depend on those drawn before add nothing and are passed over.
- Of each direction that is known, a row comes first on which its example is active: the draw then
  ends at another example.
- The inputs that are still to come lie in the row space where all known directions vanish. Guesses
  are taken from there: one that is near the mean, and steps from it towards units' own ratios.

A direction counts only if its rows determine it without any one of them: a mixture of two examples'
directions depends on a single row.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from adversary.inversion.half_spaces import separating
from adversary.inversion.low_rank import Factors

CUT = 20.0  # noise levels below which a product is zero
BLOCK = 80_000  # draws at a time, times B²
MOST = 200  # of them
WIDTH = 8  # rows that a draw may take, times B
APART = 0.02  # of a row's length must be new for it to be taken
LEAST, OCTAVES = 0.03, 2.5  # sizes of noise in the order of rows
STEP = 0.5  # of the guess's length that a step towards a ratio has at most
TINY = torch.finfo(torch.float64).tiny
DEPENDS = 0.9  # leverage of a row without which a direction may be open
CLEAR = 0.02  # of a typical product: where noise is larger, no product is called zero
ROUNDS = 6
MORE = 3  # rows beyond B − 1 that a direction needs: one or two may be chance
NEWTON = 12
WRONG = 0.01  # share of the rows that may lie on the wrong side, near it


class Search:
    """Directions of a batch, one after the other.

    Attributes:
        directions: In the coordinates of `factors.rows`, shape (num_directions, B).
        inactive: Rows that each is orthogonal to, shape (num_directions, m).
        draws: How many were made.
    """

    def __init__(
        self, factors: Factors, weight: Float[Tensor, "m n"], mean: Float[Tensor, " n"]
    ) -> None:
        """Begin.

        Args:
            factors: Of the gradient.
            weight: Weights of the same units and, as its last column, their biases.
            mean: A guess of the mean input, with a last entry of 1.
        """
        self.rows, self.values = factors.rows, factors.values
        self.whitened = self.rows / self.values
        self.units = self.whitened / self.whitened.norm(dim=1, keepdim=True)
        self.outputs = weight @ factors.right.T
        self.features = torch.linalg.qr(self.outputs)[0] * len(self.outputs) ** 0.5
        self.one = factors.right[:, -1]
        self.mean = factors.right @ mean
        ratio = self.rows @ self.one
        self.ratios = self.rows / ratio.where(ratio != 0, 1.0)[:, None]
        self.directions = self.rows.new_zeros(0, self.rows.shape[1])
        self.inactive = torch.zeros(0, len(self.rows), dtype=torch.bool)
        self.refused: set[bytes] = set()
        self.draws = self.since = 0

    @property
    def size(self) -> int:
        """Draws that are made together."""
        return max(10, min(MOST, BLOCK // self.rows.shape[1] ** 2))

    def remaining(self) -> float:
        """Return the expected number of draws until all but one direction are known.

        Each of the latest draws had the same chance; its estimate after n draws with k successes
        is (k + ½)/(n + 1).
        """
        lacking = max(1, self.rows.shape[1] - 1 - len(self.directions))
        rate = (len(self.directions) + 0.5) / (self.draws + 1) if not self.since else math.inf
        return lacking / min(rate, 0.5 / (self.since + 1))

    def step(self, generator: Generator) -> None:
        """Make draws, and keep the directions that they end at."""
        order = self._order(generator)
        chosen, basis = self._independent(order)
        before = len(self.directions)
        self.draws += len(order)
        if len(chosen):
            self._keep(chosen, basis)
        self.since = 0 if len(self.directions) > before else self.since + len(order)

    def complete(self) -> bool:
        """Add the last direction, whose input the others leave no freedom; return whether it is."""
        if len(self.directions) == len(self.values):
            return True
        output = self.outputs @ self._guess(self.mean[None])[0]
        last = self.refined(output < 0, strict=False)
        return last is not None and self.add(*last)

    def replace(self, inactive: Bool[Tensor, "k m"]) -> None:
        """Take the directions that rows determine in the place of all others."""
        refined = [self.refined(zero) for zero in inactive]
        self.forget(torch.zeros(len(self.directions), dtype=torch.bool))
        for pair in refined:
            if pair is not None:
                self.add(*pair)

    def forget(self, keep: Bool[Tensor, " k"]) -> None:
        """Drop the directions that are not to be kept."""
        self.directions, self.inactive = self.directions[keep], self.inactive[keep]

    def _guess(self, points: Float[Tensor, "k b"]) -> Float[Tensor, "k b"]:
        """Return the nearest points that known directions and the input's last entry allow."""
        constraints = torch.cat([self.directions, self.one[None]])
        lacking = -points @ constraints.T
        lacking[:, -1] += 1
        return points + lacking @ torch.linalg.pinv(constraints).T

    def _order(self, generator: Generator) -> Float[Tensor, "draws m"]:
        """Return keys by which rows are drawn, least first."""
        size, rows = self.size, len(self.rows)
        start = self._guess(self.mean[None])
        ratio = torch.randint(rows, (size,), generator=generator)
        steps = self._guess(self.ratios[ratio]) - start
        length = steps.norm(dim=1, keepdim=True).clamp(min=TINY)
        share = torch.rand(size, 1, generator=generator, dtype=steps.dtype)
        steps *= share * (STEP * start.norm() / length).clamp(max=1)
        outputs = (start + steps) @ self.outputs.T
        outputs /= outputs.std(dim=1, keepdim=True).clamp(min=TINY)
        noise = LEAST * 2 ** (OCTAVES * torch.rand(size, 1, generator=generator))
        keys = outputs + noise * torch.randn(size, rows, generator=generator, dtype=steps.dtype)
        first = torch.zeros(size, rows, dtype=torch.bool)
        for inactive in self.inactive:
            first.scatter_(1, keys.masked_fill(inactive, math.inf).argmin(dim=1)[:, None], True)
        return keys - first * (keys.max() - keys.min() + 1)

    def _independent(
        self, order: Float[Tensor, "draws m"]
    ) -> tuple[Int[Tensor, "k b1"], Float[Tensor, "k b1 b"]]:
        """Return B − 1 independent rows of each draw, and an orthonormal basis of their span."""
        size, rank = len(order), self.rows.shape[1]
        width = min(WIDTH * rank, order.shape[1])
        rows = order.topk(width, dim=1, largest=False).indices
        rest = self.units[rows]
        basis, taken = rest.new_zeros(size, rank - 1, rank), rows.new_zeros(size, rank - 1)
        complete, each = torch.ones(size, dtype=torch.bool), torch.arange(size)
        for place in range(rank - 1):
            new = rest.square().sum(dim=2) > APART**2
            complete &= new.any(dim=1)
            first = new.int().argmax(dim=1)
            direction = rest[each, first]
            direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=TINY)
            basis[:, place], taken[:, place] = direction, rows[each, first]
            rest -= (rest @ direction[:, :, None]) * direction[:, None]
        return taken[complete], basis[complete]

    def _keep(self, chosen: Int[Tensor, "k b1"], basis: Float[Tensor, "k b1 b"]) -> None:
        """Keep the directions that more rows than those drawn are orthogonal to."""
        inside = self.whitened @ basis.transpose(1, 2)
        triangle = inside[torch.arange(len(chosen))[:, None], chosen]
        weights = torch.linalg.solve_triangular(triangle, inside, upper=False, left=False)
        normal = self._normal(basis)
        products = (normal @ self.whitened.T).abs()
        scale = (normal / self.values).norm(dim=1, keepdim=True)  # of noise in a product
        zero = zeros(products, CUT * scale * (1 + weights.square().sum(dim=2)).sqrt())
        counts = zero.sum(dim=1)
        for place in counts.argsort(descending=True, stable=True).tolist():
            if counts[place] <= chosen.shape[1] or len(self.directions) == len(self.values):
                return
            if bool(self.inactive[:, chosen[place]].all(dim=1).any()):
                continue  # known
            rows = zero[place].numpy().tobytes()
            if rows in self.refused:
                continue
            refined = self.refined(zero[place])
            if refined is None or not self._is_half_space(refined[1]):
                self.refused.add(rows)
            else:
                self.add(*refined)

    def _normal(self, basis: Float[Tensor, "k b1 b"]) -> Float[Tensor, "k b"]:
        """Return what is orthogonal to each basis, of length 1."""
        rest = torch.eye(basis.shape[2], dtype=basis.dtype) - basis.transpose(1, 2) @ basis
        largest = rest.norm(dim=1).argmax(dim=1)
        normal = rest[torch.arange(len(rest)), :, largest]
        return normal / normal.norm(dim=1, keepdim=True)

    def refined(
        self, zero: Bool[Tensor, " m"], *, strict: bool = True
    ) -> tuple[Tensor, Tensor] | None:
        """Return the direction nearest to orthogonal to rows, and all rows orthogonal to it.

        None where the rows leave more than a direction open, or would without a single one of them.
        """
        rank = len(self.values)
        for _ in range(ROUNDS):
            if int(zero.sum()) < rank - 1 + (MORE if strict else 1):
                return None
            left, values, right = torch.linalg.svd(self.rows[zero], full_matrices=False)
            if not self._determined(values):
                return None
            products = (self.rows @ right[-1]).abs()
            spread = (self.rows @ right[:-1].T / values[:-1]).square().sum(dim=1)
            before, zero = zero, zeros(products, CUT * (1 + spread).sqrt())
            if torch.equal(before, zero):
                break
        else:
            return None
        leverage, row = left[:, :-1].square().sum(dim=1).max(dim=0)
        if strict and float(leverage) > DEPENDS:
            others = self.rows[zero][torch.arange(int(zero.sum())) != row]
            if not self._determined(torch.linalg.svdvals(others)):
                return None
        return right[-1], zero

    def _is_half_space(self, zero: Bool[Tensor, " m"]) -> bool:
        """Return whether some input has its inactive units on these rows and no others.

        With more examples than classes, slopes of several examples cancel wherever all are active
        (where the layer feeds the head): exact zeros, too, but of no input's. The input is looked
        for by logistic regression.
        """
        start = self.features.new_zeros(self.features.shape[1])
        weights = separating(self.features, zero, start, steps=NEWTON)
        sign = 1 - 2 * zero.to(self.features.dtype)
        wrong = (sign * (self.features @ weights) <= 0).sum()
        return int(wrong) <= WRONG * len(zero)

    def _determined(self, values: Float[Tensor, " b"]) -> bool:
        """Return whether rows with these singular values leave no more than one direction open."""
        rank = len(self.values)
        level = CUT * len(self.rows) ** 0.5
        return len(values) >= rank - 1 and float(values[rank - 2]) > level

    def add(self, direction: Float[Tensor, " b"], zero: Bool[Tensor, " m"]) -> bool:
        """Add a direction unless it is known."""
        if bool((self.inactive == zero).all(dim=1).any()):
            return False
        self.directions = torch.cat([self.directions, direction[None]])
        self.inactive = torch.cat([self.inactive, zero[None]])
        return True


def zeros(products: Float[Tensor, "*k m"], levels: Float[Tensor, "*k m"]) -> Bool[Tensor, "*k m"]:
    """Return which products are zero but for noise, where noise is so small that it tells."""
    typical = products.square().mean(dim=-1, keepdim=True).sqrt()
    return (products < levels) & (levels < CLEAR * typical)
