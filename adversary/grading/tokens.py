"""Sets of tokens: the blind set, and how a set of token ids is graded.

A set is graded by the tokens of the client's texts as the model takes them. Special tokens are left
out on both sides.
"""

import math

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.grading.rouge import f_value
from adversary.grading.texts import check_ids, plain
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View

METRICS = ("f1", "precision", "recall", "rare_recall")
DRAWS = 32  # clients of auxiliary texts, for the size of the blind set


def blind(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " named"]:
    """Return the most frequent auxiliary tokens, as many as so many texts hold on average."""
    inputs, count = auxiliary.inputs, view.latest.update.num_examples
    vocabulary = auxiliary.vocabulary
    if inputs is None or vocabulary is None or not len(inputs):
        return torch.zeros(0, dtype=torch.int64)
    counts = torch.bincount(inputs.flatten(), minlength=len(vocabulary))
    counts[list(vocabulary.special)] = 0
    draw = (DRAWS, 1 if count is None else count)
    rows = torch.randint(len(inputs), draw, generator=generator)
    used = torch.zeros(DRAWS, len(vocabulary), dtype=torch.bool)
    used[torch.arange(DRAWS).unsqueeze(1), inputs[rows].flatten(1)] = True
    sizes = (used & (counts > 0)).sum(dim=1)
    size = min(round(int(sizes.sum()) / DRAWS), int((counts > 0).sum()))
    return counts.argsort(descending=True, stable=True)[:size].sort().values


def checked(guess: object, auxiliary: Auxiliary) -> Int[Tensor, " named"]:
    """Return an attack's answer: distinct token ids, in order.

    Raises:
        ValueError: It is no list of ids of the vocabulary.
    """
    if not isinstance(guess, Tensor) or guess.dtype != torch.int64 or guess.ndim != 1:
        kind = (
            f"{guess.dtype} of shape {tuple(guess.shape)}" if isinstance(guess, Tensor) else guess
        )
        raise ValueError(f"guess: must be a list of token ids, got {kind}")
    check_ids(guess, auxiliary)
    return guess.cpu().unique()


def grade(guess: Int[Tensor, " named"], truth: Truth) -> dict[str, float]:
    """Grade a set of tokens.

    Args:
        guess: Token ids.
        truth: With texts.

    Returns:
        `precision`, `recall` of the tokens named, and `f1` of both; `precision` is NaN of none.
        `rare_recall`: of the client's tokens that no auxiliary text holds; NaN where there is none.
        All are NaN without texts.
    """
    texts = truth.texts
    if texts is None or not len(texts.ids):
        return dict.fromkeys(METRICS, math.nan)
    named, true = (
        {token for row in plain(rows, texts.vocabulary) for token in row}
        for rows in ([guess.tolist()], texts.ids.tolist())
    )
    correct, secret = named & true, true - texts.tokens
    return {
        "f1": f_value(len(correct), len(named), len(true)),
        "precision": len(correct) / len(named) if named else math.nan,
        "recall": len(correct) / len(true) if true else math.nan,
        "rare_recall": len(secret & named) / len(secret) if secret else math.nan,
    }
