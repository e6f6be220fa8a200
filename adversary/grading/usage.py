"""Grades of the number of a set's records that a client used."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View

METRICS = ("absolute_accuracy", "relative_accuracy")
POOLED = ("relative_accuracy",)


def blind(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " 1"]:
    """Return how many a client uses of such a set on average."""
    sets = auxiliary.sets
    expected = sets.expected.get(view.latest.update.client, 0.0) if sets is not None else 0.0
    return torch.tensor([expected], dtype=torch.float64)


def grade(guess: Float[Tensor, " 1"], truth: Truth) -> dict[str, float]:
    """Grade a number of records by its error, of the set's size and of the true number n.

    Args:
        guess: n̂, not negative.
        truth: With the records of the set.

    Returns:
        `absolute_accuracy`: 1 − |n̂ − n| / size, the paper's error of the share.
        `relative_accuracy`: 1 − |n̂ − n| / n; NaN where n is 0. Negative where n̂ is more than 2n.
    """
    if truth.in_set is None:
        return dict.fromkeys(METRICS, math.nan)
    used, size = float(truth.in_set.sum()), len(truth.in_set)
    error = abs(float(guess) - used)
    return {
        "absolute_accuracy": 1 - error / size if size else math.nan,
        "relative_accuracy": 1 - error / used if used else math.nan,
    }


def pool(guesses: Sequence[Any], truths: Sequence[Truth]) -> dict[str, float]:
    """Return `relative_accuracy` over the clients of a round: 1 − Σ |n̂ − n| / Σ n."""
    pairs = zip(guesses, truths, strict=True)
    counted = [(float(g), float(t.in_set.sum())) for g, t in pairs if t.in_set is not None]
    total = sum(used for _, used in counted)
    error = sum(abs(guess - used) for guess, used in counted)
    return {"relative_accuracy": 1 - error / total if total else math.nan}
