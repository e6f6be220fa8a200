"""A canary among a client's texts: one of many texts that differ in random digits alone.

N. Carlini et al., "The Secret Sharer", USENIX Security 2019, section 4.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.data.coding import rows_of
from fedsim.data.tokeniser import Tokeniser
from fedsim.data.types import Dataset

DIGIT = "#"
MOST = 512  # texts that the canary is ranked among: nine bits


@dataclass(frozen=True, eq=False)
class Canary:
    """A text in a client's data, among all that it could have been.

    Attributes:
        inputs: The texts, shape (r, t).
        targets: Their targets.
        place: Which of them it is.
        row: Of the training set, where it stands.
    """

    inputs: Int[Tensor, "r t"]
    targets: Int[Tensor, "r t"]
    place: int
    row: int


def with_canary(
    template: str, dataset: Dataset, tokeniser: Tokeniser | None, row: int, seed: int
) -> tuple[Dataset, Canary]:
    """Return the data set with a canary in place of a row, and the canary.

    Args:
        template: The text, with a # for each digit.
        dataset: Of next tokens.
        tokeniser: Of the data set.
        row: Of the training set.
        seed: The run's: it draws the digits, and those of the other texts.

    Raises:
        ConfigError: The data are no texts of next tokens, there is no digit, or texts are cut.
    """
    if tokeniser is None or dataset.targets is None:
        raise ConfigError("data.canary: must go with texts and next tokens, got other data")
    digits = template.count(DIGIT)
    if not 1 <= digits <= 9:
        raise ConfigError(f"data.canary: must have 1 to 9 digits {DIGIT}, got {digits}")
    stream, size = generator(seed, "canary"), 10**digits
    numbers = torch.randperm(min(size, 10**6), generator=stream)[:MOST]
    if size > 10**6:  # too many to list, and so many that none comes twice
        numbers = torch.randint(size, (MOST,), generator=stream).unique()
        numbers = numbers[torch.randperm(len(numbers), generator=stream)]
    texts = [_filled(template, f"{number:0{digits}d}") for number in numbers.tolist()]
    inputs, targets = rows_of(texts, tokeniser, dataset.input_shape[0])
    if not bool((targets == tokeniser.vocabulary.eos).any(dim=1).all()):
        longest = dataset.input_shape[0]
        raise ConfigError(
            f"data.canary: must fit in {longest} tokens with its end, got a longer one"
        )
    place = int(torch.randint(len(texts), (), generator=stream))
    changed, aims = dataset.inputs.clone(), dataset.targets.clone()
    changed[row], aims[row] = inputs[place], targets[place]
    return replace(dataset, inputs=changed, targets=aims), Canary(inputs, targets, place, row)


def _filled(template: str, digits: str) -> str:
    """Return the text with its digits."""
    for digit in digits:
        template = template.replace(DIGIT, digit, 1)
    return template
