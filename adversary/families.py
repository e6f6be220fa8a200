"""Families of secrets: the best guess without an update, and how a guess is graded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.counts import largest_remainder
from adversary.head import num_labels
from fedsim.types import Auxiliary, Truth, View


@dataclass(frozen=True)
class Family:
    """One kind of secret.

    Attributes:
        name: As in the ledger.
        metrics: The metrics of `grade`, for rows where no truth is at hand.
        blind: (view, auxiliary, generator) → the best guess without looking at any update.
        grade: (guess, truth) → value per metric; larger is more leakage.
    """

    name: str
    metrics: tuple[str, ...]
    blind: Callable[[View, Auxiliary, Generator], Any]
    grade: Callable[[Any, Truth], dict[str, float]]


def blind_counts(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " classes"]:
    """Spread the known number of labels like the auxiliary labels, or evenly without any."""
    classes = auxiliary.num_classes
    if auxiliary.labels is None:
        share = torch.full((classes,), 1 / classes, dtype=torch.float64)
    else:
        share = torch.bincount(auxiliary.labels, minlength=classes).double()
        share /= share.sum()
    order = torch.randperm(classes, generator=generator)
    return largest_remainder(share, num_labels(view.latest), order)


def grade_counts(guess: Int[Tensor, " classes"], truth: Truth) -> dict[str, float]:
    """Grade label counts.

    `asr` is the attack success rate of the label papers, Σ_i min(n̂_i, n_i) / N: the share of the
    labels named, order ignored. `exact` is 1 where all counts are right.
    """
    true = torch.bincount(truth.labels, minlength=len(guess))
    overlap = torch.minimum(guess, true).sum()
    # Divided by the larger total, so that naming more labels than there are buys nothing.
    total = torch.maximum(guess.sum(), true.sum())
    return {"asr": float(overlap / total), "exact": float(torch.equal(guess, true))}


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (Family("label", ("asr", "exact"), blind_counts, grade_counts),)
}
