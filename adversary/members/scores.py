"""How well scores tell members from others of the same class."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedsim.core.form import IGNORED

QUARTILES = torch.tensor([0.25, 0.5, 0.75])
SHRINK = 0.1  # share of the mean variance that is added to each record's


def within_classes(guess: Tensor, members: Tensor, classes: Tensor) -> dict[str, float]:
    """Score membership within classes, so that knowing a client's labels buys nothing.

    Clients differ in their labels: who knows which classes a client has tells its examples from
    others without any trace of a single one. Each candidate's score is therefore replaced by its
    rank among the class's non-members (other clients' rows and test rows), as the share of them
    that it beats, where a tie counts half. Equal scores, the blind guess, have an AUROC of exactly
    0.5 then, whatever the labels.

    Args:
        guess: A real score per candidate, higher for a member, shape (m,).
        members: Whether each candidate is one, shape (m,).
        classes: Its label, shape (m,); or the targets of its text, shape (m, t): texts are compared
            with those of about their length then, which alone tells much of a loss.

    Returns:
        `auroc`: the mean rank of members. It is the mean over classes of the AUROC in a class,
        weighted by its number of members.
        `advantage`: max_t TPR − FPR with a threshold t on ranks, classes weighted in the same way.
        As a maximum it is never negative: about 0.63/√k for scores that mean nothing, where k
        members are few among many non-members.
        Classes without both are left out; both values are NaN where no class has both.
    """
    classes = groups_of(classes)
    rank, others = _ranks(guess, members, classes)
    count = torch.bincount(classes[members], minlength=len(others))
    graded = ((count > 0) & (others > 0))[classes]
    inside, outside = members & graded, ~members & graded
    total = int(inside.sum())
    if not total:
        return {"auroc": math.nan, "advantage": math.nan}
    share = count / (total * others.clamp(min=1)).double()  # of FPR, per non-member of a class
    step = inside.double() / total - share[classes] * outside
    levels, place = rank[graded].unique(return_inverse=True)
    rates = torch.zeros_like(levels).index_add_(0, place, step[graded]).flip(0).cumsum(0)
    return {
        "auroc": float(rank[inside].mean()),
        "advantage": max([0.0, *rates[:-1].tolist()]),  # the last names all: TPR = FPR
    }


def groups_of(labels: Int[Tensor, "m *t"]) -> Int[Tensor, " m"]:
    """Return the labels; of texts, whose labels are their targets, the quartile of their length."""
    if labels.ndim == 1:
        return labels
    lengths = (labels != IGNORED).sum(dim=1).double()
    return torch.bucketize(lengths, lengths.quantile(QUARTILES.double()))


def _ranks(guess: Tensor, members: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of its class's non-members that each candidate beats, and their numbers."""
    order = guess.unique(return_inverse=True)[1]
    start = classes * len(guess)
    keys = (start + order)[~members].sort().values  # by class, then by score
    first = torch.searchsorted(keys, start)
    beaten = torch.searchsorted(keys, start + order) - first
    reached = torch.searchsorted(keys, start + order, right=True) - first
    others = torch.bincount(classes[~members], minlength=int(classes.max()) + 1)
    return (beaten + reached).double() / (2 * others)[classes], others


def moments(
    scores: Float[Tensor, "clients m"], use: Bool[Tensor, "clients m"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Return each record's mean and standard deviation over the clients that `use` names.

    A share of the mean variance is added to each record's, which is known from few scores.
    """
    count = use.sum(dim=0)
    mean = (scores * use).sum(dim=0) / count.clamp(min=1)
    variance = ((scores - mean).square() * use).sum(dim=0) / (count - 1).clamp(min=1)
    variance = variance + SHRINK * variance.mean() + torch.finfo(variance.dtype).tiny
    return mean, variance.sqrt()
