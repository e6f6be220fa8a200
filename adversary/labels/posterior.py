"""Counts from linear evidence: a quadratic form in the counts, a prior, and whole numbers.

Evidence says −log p(update | n) = ½ nᵀQn − rᵀn up to a constant. The counts are whole, add up to
a known total and have known lower bounds.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

SPREADS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PATIENCE = 3  # changes of many bounds at once that may make no progress
CONCENTRATIONS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0)


@dataclass(frozen=True, eq=False)
class _Prior:
    """The Dirichlet-multinomial distribution of counts, for every concentration α of the grid.

    Attributes:
        factors: log Γ(n + α) − log n!, a class's factor; shape (concentrations, counts).
        rising: log Γ(n + α) − log Γ(α), the same up to what does not depend on α; (counts,
            concentrations).
        whole: What α adds to the logarithm of all classes together; (concentrations).
    """

    factors: Tensor
    rising: Tensor
    whole: Tensor

    @classmethod
    def of(cls, classes: int, total: int) -> "_Prior":
        """Return it for counts of some classes that add up to a total."""
        grid = torch.tensor(CONCENTRATIONS, dtype=torch.float64)
        n = torch.arange(total + 1, dtype=torch.float64)
        return cls(
            torch.lgamma(n + grid[:, None]) - torch.lgamma(n + 1),
            torch.lgamma(n[:, None] + grid) - torch.lgamma(grid),
            torch.lgamma(classes * grid) - torch.lgamma(total + classes * grid),
        )

    def gain(self, before: Tensor, after: Tensor, alpha: Tensor) -> Tensor:
        """Return by how much log p(n | α) grows where two counts change; α is a place in the grid.

        A count that cannot be counts as the nearest one that can.
        """
        row = alpha * self.factors.shape[1]
        after = after.clamp(0, self.factors.shape[1] - 1)
        source, target = self.factors.take(row + after) - self.factors.take(row + before)
        return source + target

    def log_evidence(self, n: Tensor) -> Tensor:
        """Return log p(n | α), up to what α does not change; n has shape (chains, classes)."""
        return self.whole + self.rising[n].sum(dim=1)


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

    def tempered(self, heat: float) -> "Evidence":
        """Divide the logarithm of what the evidence says."""
        return Evidence(self.quadratic / heat, self.linear / heat, self.lower, self.total)

    def variance(self) -> float:
        """Return a count's mean posterior variance on counts that add up; infinite where open."""
        classes = len(self.linear)
        centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
        strength = torch.linalg.eigvalsh(centring @ self.quadratic @ centring)[1:]
        return float((1 / strength.clamp(min=0)).mean())

    def most_likely(self) -> Float[Tensor, " classes"]:
        """Return the real-valued counts of least ½ nᵀQn − rᵀn within the bounds.

        All counts below their bounds are put on them at once, and all that want to leave theirs
        leave them, as long as that makes fewer of both (block principal pivoting: J. Kim, H. Park,
        "Fast Nonnegative Matrix Factorization", SIAM J. Sci. Comput. 2011); else one at a time.
        """
        classes = len(self.linear)
        free = torch.ones(classes, dtype=torch.bool)
        n, fewest, patience = self.lower.clone(), classes + 1, PATIENCE
        for _ in range(4 * classes):
            n, pull, unit = self._on_bounds(free)
            short, over = n - self.lower, pull >= -1e-9 * unit
            leave = free & (short < -1e-9)
            enter = ~free & ~over
            wrong = int(leave.sum() + enter.sum())
            if wrong == 0 or (int(free.sum()) == 1 and not bool(enter.any())):
                break
            if wrong < fewest:
                fewest, patience = wrong, PATIENCE
            else:
                patience -= 1
            if patience > 0 and int((free & ~leave).sum() + enter.sum()) > 0:
                free = (free & ~leave) | enter
            elif bool(leave.any()) and int(free.sum()) > 1:
                free[short.argmin()] = False
            else:
                free[pull.argmin()] = True
        return torch.maximum(n, self.lower)

    def _on_bounds(self, free: Bool[Tensor, " classes"]) -> tuple[Tensor, Tensor, float]:
        """Return the best counts where all but the free ones are at their bounds.

        Returns:
            The counts, the slope along each count at its bound, and the size of a slope.
        """
        q, r, lower = self.quadratic, self.linear, self.lower
        ridge = 1e-12 * q.diagonal().mean().clamp(min=1e-300)
        inside = torch.nonzero(free)[:, 0]
        size = len(inside)
        system = torch.zeros(size + 1, size + 1, dtype=torch.float64)
        system[:size, :size] = q[inside][:, inside]
        system.diagonal()[:size] += ridge
        # The multiplier's rows in the size of the others, for the solver's sake.
        unit = system.diagonal()[:size].mean() if size else ridge
        system[:size, size] = system[size, :size] = unit
        bound = lower * ~free
        left = (unit * (self.total - bound.sum())).reshape(1)
        solution = torch.linalg.solve(system, torch.cat([r[inside] - q[inside] @ bound, left]))
        n = lower.clone()
        n[inside] = solution[:size]
        pull = q @ n - r + unit * solution[size]
        pull[free] = 0
        return n, pull, float(unit)

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
        classes, total = len(start), self.total
        source, target, amount, luck = _moves((steps, chains), classes, total, generator)
        # What no count decides is worked out for all steps at once; places are in flat counts.
        places = torch.stack([source, target], dim=1) + classes * torch.arange(chains)
        change = torch.stack([-amount, amount], dim=1).long()
        least, prior = self.lower[source], _Prior.of(classes, total)
        q, diagonal = self.quadratic, self.quadratic.diagonal()
        bend = amount.square() / 2 * (diagonal[source] + diagonal[target] - 2 * q[source, target])
        n = start.repeat(chains, 1)
        slope = n.double() @ q - self.linear
        counts, slopes = n.view(-1), slope.view(-1)
        alpha = torch.full((chains,), CONCENTRATIONS.index(1.0))
        reached = torch.zeros(classes, total + 1, dtype=torch.float64)
        of_class, ones = torch.arange(classes) * (total + 1), reached.new_ones(n.numel())
        for step in range(steps):
            before = counts.take(places[step])
            after = before + change[step]
            rise = slopes.take(places[step])
            energy = amount[step] * (rise[1] - rise[0]) + bend[step]
            taken = luck[step] < prior.gain(before, after, alpha) - energy
            taken &= after[0] >= least[step]
            counts.put_(places[step], torch.where(taken, after, before))
            slope += (amount[step] * taken).unsqueeze(1) * (q[target[step]] - q[source[step]])
            if step % 10 == 9:
                weight = prior.log_evidence(n)
                alpha = torch.multinomial(weight.softmax(dim=1), 1, generator=generator)[:, 0]
            if step >= steps // 3 and step % 5 == 0:
                reached.view(-1).index_add_(0, (n + of_class).view(-1), ones)
        return most_overlapping(reached)


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


def most_overlapping(reached: Float[Tensor, "classes counts"]) -> Int[Tensor, " classes"]:
    """Return the counts of largest expected overlap with samples, of how often each was reached."""
    classes, total = reached.shape[0], reached.shape[1] - 1
    tail = reached.flip(1).cumsum(dim=1).flip(1)[:, 1:]  # in proportion to P(n_i ≥ t)
    order = tail.flatten().sort(descending=True, stable=True).indices[:total]
    return torch.bincount(order // total, minlength=classes)
