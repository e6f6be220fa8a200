"""Exposure: how much of a secret in a text a model's likelihood tells, in bits.

N. Carlini, C. Liu, Ú. Erlingsson, J. Kos, D. Song, "The Secret Sharer: Evaluating and testing
unintended memorization in neural networks", USENIX Security 2019, Definition 5: log₂|R| less log₂
of the canary's rank among all candidates R by log-perplexity.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def exposure(scores: Float[Tensor, " candidates"], true: int) -> float:
    """Return the exposure of one candidate among all, in bits.

    Args:
        scores: Higher for a likelier candidate.
        true: Place of the canary among the candidates.

    Returns:
        From 0 to log₂ of the number of candidates. Candidates with the canary's score count half:
        all alike is about one bit, as for a canary that is first in one of two models.
    """
    value = scores[true]
    above = float((scores > value).sum())
    alike = float((scores == value).sum()) - 1
    rank = torch.tensor(1 + above + alike / 2, dtype=torch.float64)
    return float(torch.tensor(float(len(scores)), dtype=torch.float64).log2() - rank.log2())
