"""Linkage graded: pairs of uploads of different rounds, and sequences of uploads."""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.linkage.guess import packed, unpacked
from adversary.members.scores import within_classes
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View

METRICS = ("auroc", "accuracy", "ari")


def blind(
    view: View,
    auxiliary: Auxiliary,  # noqa: ARG001
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, "rows uploads"]:
    """Score all pairs alike, and put all uploads into one sequence."""
    latest, uploads = len(view.cohort), sum(map(len, view.cohorts))
    scores = torch.zeros(latest, uploads - latest)
    return packed(scores, torch.zeros(uploads, dtype=torch.int64))


def grade(guess: Float[Tensor, "rows uploads"], truth: Truth) -> dict[str, float]:
    """Grade scores of pairs, and sequences.

    Args:
        guess: As `adversary.linkage.guess` packs it.
        truth: With uploaders.

    Returns:
        `auroc`: of pairs of an upload of the latest round and an earlier one, those of one client
        against the others; ties count half.
        `accuracy`: of the latest uploads whose client has uploaded before, the share whose highest
        score is with an upload of that client; of k uploads that share it, each counts 1/k.
        `ari`: the adjusted Rand index of the sequences of all uploads.
        All are NaN where no client of the latest round has uploaded before, or no other client.

    Raises:
        ValueError: The guess is about another number of uploads.
    """
    uploaders = truth.uploaders
    if uploaders is None:
        return dict.fromkeys(METRICS, math.nan)
    if guess.shape[1] != len(uploaders):
        raise ValueError(f"guess: must be about {len(uploaders)} uploads, got {guess.shape[1]}")
    scores, sequences = unpacked(guess)
    latest, earlier = uploaders[scores.shape[1] :], uploaders[: scores.shape[1]]
    same = latest.unsqueeze(1) == earlier
    if not same.any() or same.all():
        return dict.fromkeys(METRICS, math.nan)
    flat = same.flatten()
    pairs = within_classes(scores.flatten(), flat, torch.zeros(len(flat), dtype=torch.int64))
    best = (scores == scores.max(dim=1, keepdim=True).values) & same.any(dim=1, keepdim=True)
    named = (best & same).sum(dim=1)[same.any(dim=1)] / best.sum(dim=1)[same.any(dim=1)]
    return {
        "auroc": pairs["auroc"],
        "accuracy": float(named.mean()),
        "ari": adjusted_rand(uploaders, sequences),
    }


def adjusted_rand(left: Int[Tensor, " n"], right: Int[Tensor, " n"]) -> float:
    """Return the adjusted Rand index of two partitions: 1 for equal ones, 0 on average by chance.

    L. Hubert, P. Arabie, "Comparing partitions", Journal of Classification 1985, eq. 5. NaN where
    both have one part, or as many parts as items.
    """
    pairs = lambda counts: float((counts * (counts - 1) / 2).sum())
    parts = [part.unique(return_inverse=True)[1] for part in (left, right)]
    both = parts[0] * (int(parts[1].max()) + 1) + parts[1]
    together, *alone = (pairs(torch.bincount(part)) for part in (both, *parts))
    chance, most = alone[0] * alone[1] / pairs(torch.tensor(len(left))), sum(alone) / 2
    return (together - chance) / (most - chance) if most != chance else math.nan
