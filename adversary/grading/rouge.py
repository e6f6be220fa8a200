"""ROUGE between sequences of token ids: how much of a text stands in another, and in what order.

C.-Y. Lin, "ROUGE: A package for automatic evaluation of summaries", Text Summarization Branches
Out, ACL 2004. F values of n-grams and of the longest common subsequence, over ids: no stemming, no
words. A text of fewer than n tokens is one n-gram by itself, so that identical texts score 1.

Longest common subsequences of one text and many are computed together, a bit for a token (H. Hyyrö,
"Bit-parallel LCS-length computation revisited", AWOCA 2004): all references stand in one whole
number, with a free bit behind each that takes the carry.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = Sequence[int]


def rouge_n(guess: Ids, reference: Ids, n: int) -> float:
    """Return the F value of common n-grams, in [0, 1].

    Args:
        guess: Token ids.
        reference: Token ids.
        n: Tokens in an n-gram, at least 1.
    """
    n = max(1, min(n, len(reference)))
    ours, answered = (_grams(ids, n) for ids in (reference, guess))
    return f_value((ours & answered).total(), answered.total(), ours.total())


def rouge_l(guesses: Sequence[Ids], references: Sequence[Ids]) -> NDArray[np.float64]:
    """Return the F value of the longest common subsequence of every pair.

    Returns:
        Shape (guesses, references), in [0, 1].
    """
    common = common_lengths(guesses, references).astype(float)
    lengths = [np.array([len(ids) for ids in texts], float) for texts in (guesses, references)]
    total = lengths[0][:, None] + lengths[1]
    # Two texts without a token are the same text.
    return np.where(total > 0, 2 * common / np.where(total > 0, total, 1.0), 1.0)


def f_value(common: float, guessed: float, true: float) -> float:
    """Return 2·common / (guessed + true); 1 where there is nothing to guess and no guess."""
    return 2 * common / (guessed + true) if guessed + true else 1.0


def common_lengths(guesses: Sequence[Ids], references: Sequence[Ids]) -> NDArray[np.int64]:
    """Return the length of the longest common subsequence of every pair.

    Returns:
        Shape (guesses, references).
    """
    starts = np.cumsum([0, *(len(ids) + 1 for ids in references)])
    width = int(starts[-1])
    masks: dict[int, int] = {}  # id → the bits where it stands
    for start, ids in zip(starts.tolist(), references, strict=False):
        for place, token in enumerate(ids):
            masks[token] = masks.get(token, 0) | 1 << (start + place)
    tokens = (1 << width) - 1
    for end in starts[1:].tolist():
        tokens ^= 1 << (end - 1)  # the free bits
    rows = [_zeros(_states(ids, masks, tokens), tokens, starts) for ids in guesses]
    return np.array(rows, np.int64).reshape(len(guesses), len(references))


def common_places(guess: Ids, reference: Ids) -> tuple[list[int], list[int]]:
    """Return where one longest common subsequence stands in the guess, and in the reference."""
    table = np.zeros((len(guess) + 1, len(reference) + 1), np.int64)
    for i, token in enumerate(guess):
        for j, other in enumerate(reference):
            longer = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if token == other else longer
    places: list[tuple[int, int]] = []
    i, j = len(guess), len(reference)
    while i and j:
        if guess[i - 1] == reference[j - 1]:
            i, j = i - 1, j - 1
            places.append((i, j))
        elif table[i - 1, j] >= table[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return [i for i, _ in reversed(places)], [j for _, j in reversed(places)]


def _states(ids: Ids, masks: dict[int, int], tokens: int) -> int:
    """Return a zero bit for each token of a reference that lengthens the common subsequence."""
    state = tokens
    for token in ids:
        here = state & masks.get(token, 0)
        state = ((state + here) | (state ^ here)) & tokens
    return state


def _zeros(state: int, tokens: int, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the zero bits of each reference."""
    size = int(starts[-1])
    if not size:
        return np.zeros(0, np.int64)
    left = (tokens & ~state).to_bytes(-(-size // 8), "little")
    bits = np.unpackbits(np.frombuffer(left, np.uint8), bitorder="little")[:size]
    return np.add.reduceat(bits.astype(np.int64), starts[:-1])


def _grams(ids: Ids, n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[start : start + n]) for start in range(len(ids) - n + 1))
