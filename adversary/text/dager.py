"""DAGER's search: texts whose layer inputs lie in the spans of an update, prefix by prefix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.text.dictionary import Dictionary
from adversary.text.spans import residuals

PREFIXES = 2  # times as many as the span has dimensions end a search
ROWS = 2**12  # prefixes that one step may try
HALVINGS = 9  # of the interval of the tolerance's logarithm
LOOSEST = 0.3  # residual of a vector that a search can take for one in the span
TIGHTEST = 1e-8

Inputs = Callable[[Int[Tensor, "n length"]], Float[Tensor, "n width"]]
"""Prefixes → what a layer takes at their last position."""


@dataclass(frozen=True, eq=False)
class Tree:
    """Prefixes whose vectors lie in a span.

    Attributes:
        prefixes: All of them, the shortest first.
        texts: Those that nothing extends.
        worst: The largest residual among them.
    """

    prefixes: Sequence[tuple[int, ...]]
    texts: Sequence[tuple[int, ...]]
    worst: float


def candidates(
    words: Dictionary, basis: Float[Tensor, "rank width"], tolerance: float, length: int
) -> list[Int[Tensor, " _"]]:
    """Return for each position the tokens whose first-layer vector lies in the span.

    Args:
        words: The vectors; of a layer that sees no positions, each token may stand at all.
        basis: Of the first layer's span.
        tolerance: Residual up to which a vector does.
        length: Number of positions.
    """
    inside = residuals(words.vectors, basis) <= tolerance
    return [words.tokens[inside[:, min(i, words.positions - 1)]] for i in range(length)]


def grow(
    inputs: Inputs,
    choices: Sequence[Int[Tensor, " _"]],
    basis: Float[Tensor, "rank width"],
    tolerance: float,
) -> Tree | None:
    """Return all prefixes of which every step lies in the span; None if they are too many.

    Args:
        inputs: What a layer takes that sees earlier tokens, and no later ones.
        choices: Tokens for each position.
        basis: Of that layer's span.
        tolerance: Residual up to which a vector lies in it.
    """
    front: list[tuple[int, ...]] = [()]
    everything: list[tuple[int, ...]] = []
    extended: set[tuple[int, ...]] = set()
    worst = 0.0
    for tokens in choices:
        if len(front) * len(tokens) > ROWS:
            return None
        longer = [(*prefix, token) for prefix in front for token in tokens.tolist()]
        if not longer:
            break
        rest = residuals(inputs(torch.tensor(longer)), basis)
        inside = rest <= tolerance
        if bool(inside.any()):
            worst = max(worst, float(rest[inside].max()))
        front = [it for it, keep in zip(longer, inside.tolist(), strict=True) if keep]
        extended |= {it[:-1] for it in front}
        everything += front
        if len(everything) > PREFIXES * len(basis):
            return None
    return Tree(everything, [it for it in everything if it not in extended], worst)


def fitting(
    inputs: Inputs,
    choices: Sequence[Int[Tensor, " _"]],
    basis: Float[Tensor, "rank width"],
) -> Tree | None:
    """Return the tree with as many prefixes as the span has dimensions, the nearest without one.

    The number of prefixes grows with the tolerance, whose logarithm is bisected. None if every
    tolerance leaves too many prefixes open.
    """
    low, high, nearest = TIGHTEST, LOOSEST, None
    for _ in range(HALVINGS):
        tolerance = (low * high) ** 0.5
        tree = grow(inputs, choices, basis, tolerance)
        count = float("inf") if tree is None else len(tree.prefixes)
        if count == len(basis):
            return tree
        low, high = (tolerance, high) if count < len(basis) else (low, tolerance)
        if tree is not None:
            nearest = tree
    return nearest
