"""Texts of an encoder from one gradient: its first layer's span gives tokens at positions.

A later layer sees the whole text, so that no prefix can be checked. Of two texts, what stood in
which is found by changes that turn their exact gradient towards the update: an end, an exchange
between them, another token of the span at a position.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adversary.text.assembly import refined
from adversary.text.dictionary import Dictionary
from adversary.text.replayed import Text, likeness, padded
from fedsim.core.types import Observation

LOOSEST = 1e-2  # residual of a pair that can have stood there
TOLD_APART = 2  # texts of a batch; of more, one token of each position is the answer
EACH = 6  # tokens that are tried at a position
SCORES = 1000  # gradients that are computed for these, at most
Score = Callable[[Sequence[Text]], float]


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder under attack.

    Attributes:
        model: In evaluation mode, with the weights sent.
        observation: With the update.
        classes: Number of labels.
        pad: Id of the pad.
    """

    model: nn.Module
    observation: Observation
    classes: int
    pad: int

    def likeness(self, texts: Sequence[Text], labels: Sequence[int]) -> float:
        """Return the cosine of the gradient of these texts and the update."""
        ids, _ = padded(texts, self.pad)
        return likeness(self.model, self.observation, ids, torch.tensor(labels))


def encoded(
    encoder: Encoder,
    words: Dictionary,
    residuals: Float[Tensor, "tokens positions"],
    inside: Sequence[Int[Tensor, " _"]],
) -> tuple[list[Text], float]:
    """Return an encoder's texts, and the cosine of their gradient and the update.

    Args:
        encoder: Under attack.
        words: The vectors of tokens at positions.
        residuals: Theirs to the first layer's span.
        inside: For each position the tokens in the span.
    """
    count = encoder.observation.update.num_examples or 1
    texts = _columns(words, residuals, count if count <= TOLD_APART else 1)
    if not texts:
        return [], 0.0
    ways = list(itertools.product(range(encoder.classes), repeat=len(texts)))
    labels = max(ways, key=lambda it: encoder.likeness(texts, it))
    if len(texts) > 1:
        near = words.tokens[residuals.topk(min(EACH, len(residuals)), dim=0, largest=False).indices]
        choices = [
            some if len(some) <= EACH else near[:, place] for place, some in enumerate(inside)
        ]
        texts = _climbed(texts, choices, lambda these: encoder.likeness(these, labels))
    return texts, encoder.likeness(texts, labels)


def _climbed(texts: list[Text], choices: Sequence[Tensor], score: Score) -> list[Text]:
    """Return texts after changes that raise a score, until none does."""
    spent = 0

    def counted(these: Sequence[Text]) -> float:
        nonlocal spent
        spent += 1
        return score(these)

    value = counted(texts)
    while spent < SCORES:
        before = value
        for changed in _ends(texts):
            if (reached := counted(changed)) > value:
                texts, value = changed, reached
        texts = refined(texts, counted)
        value = counted(texts)
        for text, place in [(t, i) for t in range(len(texts)) for i in range(len(texts[t]))]:
            for token in choices[place].tolist():
                changed = list(texts)
                changed[text] = (*texts[text][:place], token, *texts[text][place + 1 :])
                if (reached := counted(changed)) > value:
                    texts, value = changed, reached
        if value <= before:
            break
    return texts


def _ends(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """Yield the texts with one of them cut."""
    for text, whole in enumerate(texts):
        for end in range(1, len(whole)):
            changed = list(texts)
            changed[text] = whole[:end]
            yield changed


def _columns(
    words: Dictionary, residuals: Float[Tensor, "tokens positions"], count: int
) -> list[Text]:
    """Return texts of the likeliest tokens of each position, in the order of residuals.

    They go up to the first position without any token; a position with fewer tokens than texts has
    them in several.
    """
    best = residuals.topk(min(count, len(residuals)), dim=0, largest=False)
    some = (best.values <= LOOSEST).sum(dim=0)
    length = int((some > 0).long().cumprod(dim=0).sum())
    texts: list[list[int]] = [[] for _ in range(int(some.max()))] if length else []
    for tokens, each in zip(words.tokens[best.indices].T[:length], some.tolist(), strict=False):
        for place, text in enumerate(texts):
            text.append(int(tokens[min(place, each - 1)]))
    return [tuple(text) for text in texts]
