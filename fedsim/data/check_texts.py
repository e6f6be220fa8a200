"""The door of texts: of a loader's texts, and of data sets that are token ids already."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.boundary import boundary, in_one_line, is_sentence
from fedsim.core.errors import ConfigError
from fedsim.core.form import IGNORED
from fedsim.data.types import Dataset, Texts

PART = "data set"
STRINGS = Rule(PART, "texts", "must be a list of texts that UTF-8 can hold")
PAIRED = Rule(PART, "labels", "must be a whole number from 0 for each text")
VALUES = Rule(PART, "columns", "must map names to one value per training text")
IDS = Rule(PART, "inputs", "must be ids of the vocabulary where there is one, a row per text")
PADS = Rule(PART, "inputs", "must have pads on the right of a text alone")
TARGETS = Rule(
    PART, "targets", "must be an id of the vocabulary or −100 for each token, one in each text"
)
SIZE = Rule(PART, "num_classes", "must be the size of the vocabulary where there are targets")
BOTH = Rule(PART, "targets", "must be there for training and test rows, with a vocabulary")
CHECKS = (STRINGS, PAIRED, VALUES, IDS, PADS, TARGETS, SIZE, BOTH)


@contextmanager
def loaded(name: str) -> Iterator[None]:
    """Turn what is wrong with a loader's data into one sentence that names the loader.

    Raises:
        ConfigError: A rule is broken, or the data cannot be read.
    """
    with in_one_line(), boundary("data.name", f"'{name}' must give what can be read"):
        try:
            yield
        except ValueError as error:
            if not is_sentence(error):
                raise
            raise ConfigError(f"data.name: '{name}' gives {error}") from None


def checked_texts(name: str, given: Texts) -> Texts:
    """Return texts with labels of int64, or refuse them.

    Args:
        name: As in the config.
        given: What its function returned.

    Raises:
        ConfigError: They break one of `CHECKS`.
    """
    with loaded(name):
        return _checked(given)


def check_ids(dataset: Dataset, inputs: Tensor, test_inputs: Tensor, num_classes: int) -> None:
    """Refuse token ids that are none of the vocabulary, and targets that do not fit them.

    Raises:
        ValueError: In one sentence.
    """
    targets, vocabulary = (dataset.targets, dataset.test_targets), dataset.vocabulary
    if vocabulary is None and targets == (None, None):
        return
    if vocabulary is None or sum(each is None for each in targets) == 1:
        raise ValueError(BOTH.message("a part of them"))
    for rows, wanted in zip((inputs, test_inputs), targets, strict=True):
        _check_rows(rows, len(vocabulary), vocabulary.pad)
        if wanted is not None:
            _check_targets(wanted, rows, len(vocabulary))
    if targets[0] is not None and num_classes != len(vocabulary):
        raise ValueError(SIZE.message(f"{num_classes} beside {len(vocabulary)} ids"))


def _check_rows(ids: Tensor, size: int, pad: int) -> None:
    if ids.is_floating_point() or ids.ndim != 2:
        raise ValueError(IDS.message(f"shape {tuple(ids.shape)} of {ids.dtype}"))
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise ValueError(IDS.message(f"{low} to {high} with a vocabulary of {size}"))
    empty = ids == pad
    inside = (empty[:, :-1] & ~empty[:, 1:]).any(dim=1) | empty[:, 0]
    if bool(inside.any()):
        raise ValueError(PADS.message(f"one before a token in row {int(inside.nonzero()[0])}"))


def _check_targets(targets: Tensor, ids: Tensor, size: int) -> None:
    if not isinstance(targets, Tensor) or targets.shape != ids.shape or targets.dtype != ids.dtype:
        got = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise ValueError(TARGETS.message(f"{got} beside inputs of {tuple(ids.shape)}"))
    wrong = ((targets < 0) | (targets >= size)) & (targets != IGNORED)
    if bool(wrong.any()):
        raise ValueError(TARGETS.message(int(targets[wrong][0])))
    if bool((none := (targets == IGNORED).all(dim=1)).any()):
        raise ValueError(TARGETS.message(f"none in row {int(none.nonzero()[0])}"))


def _checked(given: Texts) -> Texts:
    labels = _half("", given.texts, given.labels, given.num_classes)
    test_labels = _half("test_", given.test_texts, given.test_labels, given.num_classes)
    for name, column in given.columns.items():
        if not isinstance(name, str) or len(column) != len(given.texts):
            raise ValueError(VALUES.message(f"{len(column)} for {len(given.texts)} in {name!r}"))
    return replace(given, labels=labels, test_labels=test_labels)


def _half(prefix: str, texts: object, labels: object, num_classes: int) -> Tensor:
    """Return the labels of the training or the test texts."""
    strings, paired = (replace(it, field=f"{prefix}{it.field}") for it in (STRINGS, PAIRED))
    if isinstance(texts, str) or not hasattr(texts, "__len__") or not len(texts):  # type: ignore[arg-type]
        raise ValueError(strings.message(repr(texts)[:80]))
    for row, text in enumerate(texts):  # type: ignore[arg-type]
        if not isinstance(text, str):
            raise ValueError(strings.message(f"{type(text).__name__} in row {row}"))
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(strings.message(f"{text[:40]!r} in row {row}"))
    values = torch.as_tensor(labels)
    if values.shape != (len(texts),) or values.is_floating_point():  # type: ignore[arg-type]
        raise ValueError(paired.message(f"shape {tuple(values.shape)} of {values.dtype}"))
    if int(values.min()) < 0 or int(values.max()) >= num_classes:
        got = f"{int(values.min())} to {int(values.max())} with num_classes = {num_classes}"
        raise ValueError(paired.message(got))
    return values.long()
