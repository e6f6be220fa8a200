"""Texts become token ids: padded inputs, and the next token at each position."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from fedsim.core.errors import ConfigError
from fedsim.core.form import IGNORED
from fedsim.core.vocabulary import Vocabulary
from fedsim.data.tokeniser import Tokeniser, tokeniser_of
from fedsim.data.types import Dataset, Texts

SHORTEST = 2  # tokens of an input: the begin, and one that has one before it


def tokeniser_for(texts: Texts, public: Int[Tensor, " m"]) -> Tokeniser:
    """Return the tokeniser of texts, learned from the public rows alone.

    Args:
        texts: All of them.
        public: Rows of the training set that are the adversary's.

    Raises:
        ConfigError: There are no public texts to learn from, or its file is none.
    """
    learned = [texts.texts[int(row)] for row in public]
    return tokeniser_of(texts.tokeniser, learned, texts.vocabulary)


def coded(texts: Texts, tokeniser: Tokeniser) -> Dataset:
    """Return texts as token ids.

    A text is coded as begin, t₁ … tₙ, end. Inputs are all but the end, and targets all but the
    begin, both cut to the length; pads fill up the right.

    Raises:
        ConfigError: The length is too short, or there are no classes to learn.
    """
    if texts.length < SHORTEST:
        raise ConfigError(f"data.length: must be at least {SHORTEST} tokens, got {texts.length}")
    if texts.task == "label" and texts.num_classes < 2:
        raise ConfigError("data.task: must be 'next' for texts without classes, got 'label'")
    inputs, targets = rows_of(texts.texts, tokeniser, texts.length)
    test_inputs, test_targets = rows_of(texts.test_texts, tokeniser, texts.length)
    language = texts.task == "next"
    return Dataset(
        inputs=inputs,
        labels=texts.labels,
        test_inputs=test_inputs,
        test_labels=texts.test_labels,
        num_classes=len(tokeniser.vocabulary) if language else texts.num_classes,
        columns=texts.columns,
        vocabulary=tokeniser.vocabulary,
        targets=targets if language else None,
        test_targets=test_targets if language else None,
    )


def rows_of(
    texts: Sequence[str], tokeniser: Tokeniser, length: int
) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n t"]]:
    """Return inputs and targets."""
    vocabulary: Vocabulary = tokeniser.vocabulary
    inputs = torch.full((len(texts), length), vocabulary.pad)
    targets = torch.full((len(texts), length), IGNORED)
    for row, text in enumerate(texts):
        ids = torch.tensor([vocabulary.bos, *tokeniser.encode(text), vocabulary.eos])
        count = min(length, len(ids) - 1)
        inputs[row, :count], targets[row, :count] = ids[:count], ids[1 : count + 1]
    return inputs, targets
