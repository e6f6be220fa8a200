"""Recovered texts: the blind texts, and how a list of guesses is graded.

What is guessed is a set of texts, as token ids: in any order, and of any number. Guesses go to
texts one to one, so that the sum of ROUGE-L is largest (scorers that give each text its best guess
count one good guess for all texts). Of more guesses than the client has distinct texts the first
count; a text without a guess scores 0. Special tokens are left out on both sides.
"""

import math
import string
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.grading.rouge import f_value, rouge_l, rouge_n
from fedsim.core.form import PAD
from fedsim.core.ground_truth import Texts, Truth
from fedsim.core.types import Auxiliary, View
from fedsim.core.vocabulary import Vocabulary

METRICS = ("token_f1", "rougeL", "rouge1", "rouge2", "exact", "rare_words")
FILL = -1  # behind the end of a guess, where guesses stand in one tensor
Ids = list[int]


def blind(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, "n length"]:
    """Return random auxiliary texts, one for each that the client told of."""
    count = view.latest.update.num_examples
    if auxiliary.inputs is None or not len(auxiliary.inputs):
        return torch.full((0, 0), FILL)
    return drawn(auxiliary.inputs, 1 if count is None else count, generator)


def drawn(inputs: Int[Tensor, "m length"], count: int, generator: Generator) -> Tensor:
    """Return random texts of some, each once before any comes twice, shape (count, length)."""
    order = torch.randperm(len(inputs), generator=generator)
    picked = inputs[order.repeat(-(-count // len(order)))[:count]]
    return picked.masked_fill(picked == PAD, FILL)


def checked(guess: object, auxiliary: Auxiliary) -> Int[Tensor, "n length"]:
    """Return an attack's answer as one tensor, filled up with −1.

    Args:
        guess: Sequences of token ids, the most confident first.
        auxiliary: With the vocabulary.

    Raises:
        ValueError: It is no list of sequences of ids of the vocabulary.
    """
    if isinstance(guess, Tensor) or not isinstance(guess, Sequence):
        raise ValueError(f"guess: must be a list of tensors of ids, got {type(guess).__name__}")
    for ids in guess:
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64 or ids.ndim != 1:
            kind = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else ids
            raise ValueError(f"guess: must hold tensors of ids, one dimension each, got {kind}")
        check_ids(ids, auxiliary)
    packed = torch.full((len(guess), max(map(len, guess), default=0)), FILL)
    for row, ids in zip(packed, guess, strict=True):
        row[: len(ids)] = ids.cpu()
    return packed


def check_ids(ids: Tensor, auxiliary: Auxiliary) -> None:
    """Refuse token ids that are none of the vocabulary.

    Raises:
        ValueError: There is one.
    """
    size = len(auxiliary.vocabulary) if auxiliary.vocabulary is not None else 0
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        rule = f"must hold ids from 0 to {size - 1}"
        raise ValueError(f"guess: {rule}, got {int(ids.min())} to {int(ids.max())}")


def plain(rows: Iterable[Sequence[int]], vocabulary: Vocabulary) -> list[Ids]:
    """Return each row of ids without special tokens and what fills it up."""
    special = {*vocabulary.special, FILL}
    return [[token for token in row if token not in special] for row in rows]


def paired(guess: Int[Tensor, "k length"], truth: Texts) -> list[tuple[Ids, Ids]]:
    """Return each of the client's texts with the guess that stands for it, empty without one.

    Args:
        guess: As `checked` returns it.
        truth: The texts.

    Returns:
        (guess, text) in the order of the texts.
    """
    from scipy.optimize import linear_sum_assignment

    texts = plain(truth.ids.tolist(), truth.vocabulary)
    guesses = plain(guess[: len(texts)].tolist(), truth.vocabulary)
    matched: list[Ids] = [[] for _ in texts]
    if guesses and texts:
        rows, columns = linear_sum_assignment(rouge_l(guesses, texts), maximize=True)
        for row, column in zip(rows, columns, strict=True):
            matched[column] = guesses[row]
    return list(zip(matched, texts, strict=True))


def grade(guess: Int[Tensor, "k length"], truth: Truth) -> dict[str, float]:
    """Grade recovered texts.

    Args:
        guess: As `checked` returns it.
        truth: With texts.

    Returns:
        `token_f1`: F value of the multisets of tokens of all guesses and of all texts.
        `rougeL`, `rouge1`, `rouge2`: means over the client's texts; see `adversary.grading.rouge`.
        `exact`: share of the texts that are recovered token for token.
        `rare_words`: share of the client's words that no auxiliary text holds, which some guess
        does; NaN where there is none.
        All are NaN without texts.
    """
    if truth.texts is None or not len(truth.texts.ids):
        return dict.fromkeys(METRICS, math.nan)
    pairs = paired(guess, truth.texts)
    guessed, true = (Counter(token for pair in pairs for token in pair[i]) for i in (0, 1))
    common = (guessed & true).total()
    values = {
        "token_f1": [f_value(common, guessed.total(), true.total())],
        "rougeL": rouge_l(*map(list, zip(*pairs, strict=True))).diagonal(),
        "rouge1": [rouge_n(ids, text, 1) for ids, text in pairs],
        "rouge2": [rouge_n(ids, text, 2) for ids, text in pairs],
        "exact": [float(ids == text) for ids, text in pairs],
    }
    means = {name: float(np.mean(each)) for name, each in values.items()}
    return {**means, "rare_words": _recovered(pairs, truth.texts)}


def rare(text: str, common: frozenset[str]) -> set[str]:
    """Return the words of a text that no auxiliary text holds."""
    return words(text) - common


def words(text: str) -> set[str]:
    """Return the distinct words of a text: in lower case, without punctuation around them."""
    stripped = (word.strip(string.punctuation) for word in text.lower().split())
    return {word for word in stripped if word}


def _recovered(pairs: Sequence[tuple[Ids, Ids]], truth: Texts) -> float:
    """Return the share of the rare words of all texts that the guesses hold."""
    guessed, true = (
        {word for pair in pairs for word in words(truth.vocabulary.text(pair[i]))} for i in (0, 1)
    )
    secret = true - truth.common
    return len(secret & guessed) / len(secret) if secret else math.nan
