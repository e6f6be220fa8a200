"""Counts from linear evidence: a quadratic form in the counts, a prior, and whole numbers.

Evidence says −log p(update | n) = ½ nᵀQn − rᵀn up to a constant. The counts are whole, add up to
a known total and have known lower bounds.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

SPREADS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONCENTRATIONS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0)


@dataclass(frozen=True)
class Evidence:
    """What updates say about counts that add up to `total`.

    Attributes:
        quadratic: Q, positive semidefinite.
        linear: r.
        lower: Counts that are certain.
        total: Σ n.
    """

    quadratic: Float[Tensor, "classes classes"]
    linear: Float[Tensor, " classes"]
    lower: Float[Tensor, " classes"]
    total: int

    def with_prior(self, spread: float) -> "Evidence":
        """Add the prior n ~ N(total/C, spread · (I − 11ᵀ/C))."""
        classes = len(self.linear)
        centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
        # The prior's mean is constant over classes, so that it adds nothing to r.
        return Evidence(self.quadratic + centring / spread, self.linear, self.lower, self.total)

    def most_likely(self) -> Float[Tensor, " classes"]:
        """Return the real-valued counts of least ½ nᵀQn − rᵀn within the bounds (active set)."""
        q, r, lower = self.quadratic, self.linear, self.lower
        classes = len(r)
        ridge = 1e-12 * q.diagonal().mean().clamp(min=1e-300)
        free = torch.ones(classes, dtype=torch.bool)
        n = lower.clone()
        for _ in range(4 * classes):
            inside = torch.nonzero(free)[:, 0]
            size = len(inside)
            system = torch.zeros(size + 1, size + 1, dtype=torch.float64)
            system[:size, :size] = q[inside][:, inside]
            system.diagonal()[:size] += ridge
            # The multiplier's rows in the size of the others, for the solver's sake.
            unit = system.diagonal()[:size].mean() if size else ridge
            system[:size, size] = system[size, :size] = unit
            target = torch.cat(
                [
                    r[inside] - q[inside] @ (lower * ~free),
                    (unit * (self.total - (lower * ~free).sum())).reshape(1),
                ]
            )
            solution = torch.linalg.solve(system, target)
            n = lower.clone()
            n[inside] = solution[:size]
            short = n - lower
            if size > 1 and float(short.min()) < -1e-9:
                free[short.argmin()] = False
                continue
            pull = q @ n - r + unit * solution[size]
            pull[free] = 0
            if float(pull.min()) >= -1e-9 * float(unit):
                break
            free[pull.argmin()] = True
        return torch.maximum(n, lower)

    def whole(self, n: Float[Tensor, " classes"]) -> Int[Tensor, " classes"]:
        """Round to whole counts, then move single units while that makes them more likely."""
        counts = round_above(n, self.lower, self.total).double()
        q = self.quadratic
        pairs = (q.diagonal().unsqueeze(1) + q.diagonal() - 2 * q) / 2
        slope = q @ counts - self.linear
        for _ in range(10 * len(counts) + self.total):
            gain = slope.unsqueeze(0) - slope.unsqueeze(1) + pairs  # of a unit from i to j
            gain.masked_fill_((counts <= self.lower).unsqueeze(1), torch.inf).fill_diagonal_(0.0)
            best = int(gain.argmin())
            i, j = divmod(best, len(counts))
            if float(gain[i, j]) >= -1e-9:
                break
            counts[i] -= 1
            counts[j] += 1
            slope += q[:, j] - q[:, i]
        return counts.long()

    def expected_overlap_counts(
        self, start: Int[Tensor, " classes"], generator: Generator, *, chains: int, steps: int
    ) -> Int[Tensor, " classes"]:
        """Return the counts of largest expected overlap with the truth, Σ_i E min(n̂_i, n_i).

        Metropolis sampling of counts under a Dirichlet-multinomial prior whose concentration is
        sampled too; then unit by unit the class with the largest P(n_i ≥ n̂_i + 1).

        Args:
            start: Where all chains begin.
            generator: Draws the moves.
            chains: How many run side by side.
            steps: Moves of each chain; the first third is left out.
        """
        classes, total, lower = len(start), self.total, self.lower
        n = start.double().repeat(chains, 1)
        slope = n @ self.quadratic - self.linear
        q, diagonal = self.quadratic, self.quadratic.diagonal()
        grid = torch.tensor(CONCENTRATIONS, dtype=torch.float64)
        alpha = torch.ones(chains, dtype=torch.float64)
        row = torch.arange(chains)
        source, target, amount, luck = _moves((steps, chains), classes, total, generator)
        reached = torch.zeros(classes, total + 1, dtype=torch.float64)
        ones = torch.ones(chains, dtype=torch.float64)
        for step in range(steps):
            i, j, move = source[step], target[step], amount[step]
            from_, to = n[row, i], n[row, j]
            possible = from_ - move >= lower[i]
            left = torch.where(possible, from_ - move, from_)
            energy = move * (slope[row, j] - slope[row, i])
            energy += move.square() / 2 * (diagonal[i] + diagonal[j] - 2 * q[i, j])
            prior = _log_prior(left, alpha) - _log_prior(from_, alpha)
            prior += _log_prior(to + move, alpha) - _log_prior(to, alpha)
            move = torch.where(possible & (luck[step] < prior - energy), move, 0.0)
            n[row, i] -= move
            n[row, j] += move
            slope += move.unsqueeze(1) * (q[j] - q[i])
            if step % 10 == 9:
                weight = _log_evidence(n, grid)
                draw = torch.multinomial(weight.softmax(dim=1), 1, generator=generator)
                alpha = grid[draw[:, 0]]
            if step >= steps // 3 and step % 5 == 0:
                for c in range(classes):
                    reached[c].index_add_(0, n[:, c].long(), ones)
        return _most_overlapping(reached)


def round_above(
    n: Float[Tensor, " classes"], lower: Float[Tensor, " classes"], total: int
) -> Int[Tensor, " classes"]:
    """Round to whole counts of the given total, none below its bound."""
    floor = torch.maximum(n.floor(), lower).long()
    counts = floor.clone()
    surplus = int(counts.sum()) - total
    while surplus > 0:  # bounds that the rounded counts do not leave room for
        slack = torch.where(counts > lower.long(), counts - n, -torch.inf)
        counts[slack.argmax()] -= 1
        surplus -= 1
    order = (n - floor).sort(descending=True, stable=True).indices
    for place in range(-surplus):
        counts[order[place % len(order)]] += 1
    return counts


def _moves(
    shape: tuple[int, int], classes: int, total: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw moves of units: from which class, to which other, how many, and log u of a uniform u."""
    source = torch.randint(classes, shape, generator=generator)
    target = (source + torch.randint(1, classes, shape, generator=generator)) % classes
    largest = max(1, (total // 8).bit_length())
    amount = (2 ** torch.randint(largest, shape, generator=generator)).double()
    return source, target, amount, torch.rand(shape, generator=generator, dtype=torch.float64).log()


def _most_overlapping(reached: Float[Tensor, "classes counts"]) -> Int[Tensor, " classes"]:
    """Return the counts of largest expected overlap with samples, of how often each was reached."""
    classes, total = reached.shape[0], reached.shape[1] - 1
    tail = reached.flip(1).cumsum(dim=1).flip(1)[:, 1:]  # in proportion to P(n_i ≥ t)
    order = tail.flatten().sort(descending=True, stable=True).indices[:total]
    return torch.bincount(order // total, minlength=classes)


def _log_prior(n: Tensor, alpha: Tensor) -> Tensor:
    """Return a class's factor of the Dirichlet-multinomial probability, as its logarithm."""
    return torch.lgamma(n + alpha) - torch.lgamma(n + 1)


def _log_evidence(n: Float[Tensor, "chains classes"], grid: Float[Tensor, " grid"]) -> Tensor:
    """Return log p(n | α) for every α of the grid, up to what does not depend on it."""
    classes, total = n.shape[1], n[0].sum()
    whole = torch.lgamma(classes * grid) - torch.lgamma(total + classes * grid)
    return whole + (torch.lgamma(n.unsqueeze(2) + grid) - torch.lgamma(grid)).sum(dim=1)
