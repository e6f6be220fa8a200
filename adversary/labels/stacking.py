"""Several answers made one, by what they were worth on clients whose counts are known.

Stacked generalisation: D. H. Wolpert, "Stacked Generalization", Neural Networks 5(2), 1992, with
ridge regression as the level-1 generaliser and one client left out at a time; then empirical Bayes
between a client of even labels and one of uneven labels. Deviations are shares times classes less
one: 0 everywhere for even counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 0.01  # of the data's own weight
LEAST = 0.05  # variance of the logarithm of a spread: few clients do not show less
NONE = 1e-6  # a spread that is rounding


@dataclass(frozen=True)
class Stack:
    """What several answers are worth together.

    Attributes:
        weights: Of each answer's deviation.
        even: Mean log spread that clients of even labels seem to have.
        uneven: The same of clients of uneven labels.
        variance: Of the log spread among clients of one kind.
    """

    weights: Float[Tensor, " answers"]
    even: float
    uneven: float
    variance: float

    def deviation(self, answers: Float[Tensor, "classes answers"]) -> Float[Tensor, " classes"]:
        """Return by how much a client's shares deviate from even ones.

        Args:
            answers: Deviations, as several attacks answer.
        """
        return self.shrunken(answers @ self.weights)

    def shrunken(self, deviation: Float[Tensor, " classes"]) -> Float[Tensor, " classes"]:
        """Return a deviation times the probability that the client's labels are uneven.

        Both kinds of clients are as likely before; their log spreads are taken as normal, of one
        variance (linear discriminant).
        """
        middle = (self.even + self.uneven) / 2
        odds = (self.uneven - self.even) / self.variance * (log_spread(deviation) - middle)
        return deviation * torch.tensor(odds, dtype=torch.float64).sigmoid()


def stack(
    answers: Sequence[Float[Tensor, "classes answers"]],
    truth: Sequence[Float[Tensor, " classes"]],
    uneven: Sequence[bool],
) -> tuple[Stack, list[Float[Tensor, " classes"]]]:
    """Learn what answers are worth.

    Args:
        answers: Deviations that several attacks answer, for each client.
        truth: Each client's deviations.
        uneven: Whether its labels are uneven; both kinds occur.

    Returns:
        The stack, and for each client its answer without that client's weights.
    """
    squares = [x.T @ x for x in answers]
    products = [x.T @ y for x, y in zip(answers, truth, strict=True)]
    square, product = torch.stack(squares).sum(dim=0), torch.stack(products).sum(dim=0)
    ridge = torch.diag((RIDGE * square.diagonal()).clamp(min=NONE))
    without = [
        x @ torch.linalg.solve(square - s + ridge, product - p)
        for x, s, p in zip(answers, squares, products, strict=True)
    ]
    logs = torch.tensor([log_spread(each) for each in without], dtype=torch.float64)
    kind = torch.tensor(uneven)
    even, rest = logs[~kind], logs[kind]
    squared = (even - even.mean()).square().sum() + (rest - rest.mean()).square().sum()
    learned = Stack(
        weights=torch.linalg.solve(square + ridge, product),
        even=float(even.mean()),
        uneven=max(float(rest.mean()), float(even.mean())),
        variance=max(float(squared) / max(1, len(logs) - 2), LEAST),
    )
    return learned, [learned.shrunken(each) for each in without]


def log_spread(deviation: Float[Tensor, " classes"]) -> float:
    """Return the logarithm of the mean square of a deviation."""
    return math.log(float(deviation.square().mean()) + NONE)
