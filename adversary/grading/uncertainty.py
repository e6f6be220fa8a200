"""Does an attack that says how uncertain its pictures are say where they are wrong?"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.grading import records
from adversary.grading.reconstructions import assigned, is_image, paired, scaled
from fedsim.core.ground_truth import Truth

CORRELATION = "uncertainty_correlation"
METRICS = (records.CONFIDENCE, CORRELATION)


def grade(guess: Tensor, uncertainty: Tensor, truth: Truth) -> dict[str, tuple[float, float]]:
    """Return how well an uncertainty tells where an answer is wrong, and the chance of that.

    Of images `uncertainty_correlation`: Spearman's rank correlation of uncertainty and absolute
    error, over all numbers of the answered examples; NaN where either is the same everywhere. Of
    records see `records.grade_confidence`.

    Args:
        guess: Any number of answers.
        uncertainty: Of each number of them.
        truth: With inputs and a lineup.
    """
    if truth.inputs is None or truth.lineup is None or not is_image(truth.inputs.shape[1:]):
        return records.grade_confidence(guess, uncertainty, truth)
    errors = (paired(guess, truth) - scaled(truth.inputs, truth.lineup)).abs()
    unsure, answered = in_order(guess, uncertainty, truth)
    return {CORRELATION: (rank_correlation(unsure[answered], errors[answered]), 0.0)}


def in_order(
    guess: Float[Tensor, "k *shape"], uncertainty: Float[Tensor, "k *shape"], truth: Truth
) -> tuple[Float[Tensor, "n *shape"], Tensor]:
    """Return the uncertainty of what stands for each of a client's examples, and which have one.

    Args:
        guess: Any number of answers.
        uncertainty: Of each number of them, in the data's own range.
        truth: With inputs and a lineup.

    Returns:
        On the scale of the data, 0 where no answer stands for an example, float64; and whether one
        does, shape (n,).
    """
    assert truth.inputs is not None
    assert truth.lineup is not None
    span = (truth.lineup.high - truth.lineup.low).double()
    values = uncertainty.double() / span.where(span > 0, 1.0)
    places = assigned(guess, truth)
    blanks = values.new_zeros(len(truth.inputs), *values.shape[1:])
    return torch.cat([values, blanks])[places], places < len(uncertainty)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation; NaN where either is the same everywhere."""
    from scipy.stats import rankdata

    ranks = torch.stack([torch.from_numpy(rankdata(it.flatten().numpy())) for it in (a, b)])
    if not bool((ranks != ranks[:, :1]).any(dim=1).all()):
        return math.nan
    return float(torch.corrcoef(ranks)[0, 1])
