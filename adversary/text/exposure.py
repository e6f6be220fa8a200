"""Exposure: how much of a secret in a text a model's likelihood tells, in bits.

N. Carlini, C. Liu, Ú. Erlingsson, J. Kos, D. Song, "The Secret Sharer: Evaluating and testing
unintended memorization in neural networks", USENIX Security 2019, Definition 5: log₂|R| less log₂
of the canary's rank among all candidates R by log-perplexity.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adversary.workspace import Workspace, evaluating
from fedsim.core.form import IGNORED
from fedsim.core.types import Params

BATCH = 128  # texts at a time


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


def log_likelihoods(work: Workspace, state: Params) -> Float[Tensor, " candidates"]:
    """Return the log-likelihood of each canary under a model.

    Args:
        work: Of an adversary with canaries.
        state: All parameters and buffers of the model.
    """
    canaries = work.auxiliary.canaries
    assert canaries is not None
    used = int((canaries.labels != IGNORED).any(dim=0).sum())  # positions that some text has
    scores = []
    with evaluating(work, state) as model, torch.no_grad():
        for rows in torch.arange(len(canaries.inputs)).split(BATCH):
            inputs, targets = canaries.inputs[rows, :used], canaries.labels[rows, :used]
            losses = functional.cross_entropy(model(inputs), targets, reduction="none")
            scores.append(-losses.double().sum(dim=1))
    return torch.cat(scores)
