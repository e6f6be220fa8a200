"""Exposure of a canary in bits: the blind rank, and how scores of all candidates are graded."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.text.exposure import exposure, log_likelihoods
from adversary.workspace import workspace
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View

METRICS = ("exposure",)


def blind(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " r"]:
    """Return the log-likelihoods under the first model sent: before any training on the canary."""
    if auxiliary.canaries is None:
        return torch.zeros(0, dtype=torch.float64)
    return log_likelihoods(workspace(view, auxiliary), view.observations[0].sent)


def grade(guess: Float[Tensor, " r"], truth: Truth) -> dict[str, float]:
    """Grade scores of all canaries that a client could hold.

    Returns:
        `exposure` in bits, NaN where the client used none.
    """
    return {"exposure": math.nan if truth.canary is None else exposure(guess, truth.canary)}


def ceiling(truths: Sequence[Truth]) -> dict[str, float]:
    """Return the most that is possible: log₂ of the number of canaries."""
    sizes = [truth.canaries for truth in truths if truth.canaries]
    return {"exposure": math.log2(max(sizes))} if sizes else {}
