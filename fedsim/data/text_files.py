"""Published texts: a tab-separated file with a header and a text per row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fedsim.core.accepts import Rule
from fedsim.data.types import Task, Texts

PART = "published texts"
TEXT = Rule(PART, "a file", "must be UTF-8 text")
HEADER = Rule(PART, "the first line", "must name the set's own columns, separated by tabs")
COUNT = Rule(PART, "every line", "must hold one value per column, separated by tabs")
SPLIT = Rule(PART, "a split", "must be train or test")
BOTH = Rule(PART, "a file", "must hold training and test rows")
CHECKS = (TEXT, HEADER, COUNT, SPLIT, BOTH)
SPLITS = ("train", "test")


def read_texts(
    path: Path,
    columns: Sequence[str],
    *,
    length: int,
    vocabulary: int,
    tokeniser: str,
    task: Task,
) -> Texts:
    """Return the texts of a file, each once: repeated ones are left out, the first one stays.

    A copy of a client's text among the adversary's, or among the test rows, would be no other
    text. Classes are numbered in the order of their names; a user is a column.

    Args:
        path: The file.
        columns: Its columns; the first is `split`, the last `text`.
        length: See `Texts`.
        vocabulary: See `Texts`.
        tokeniser: See `Texts`.
        task: See `Texts`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is another file; the sentence gives line, rule and value.
    """
    table = _rows(path, columns)
    rows = _distinct(table)
    if not all(rows.values()):
        raise ValueError(f"{path.name}: {BOTH.rule}, got {', '.join(s for s in SPLITS if rows[s])}")
    names = sorted({row[1] for row in table}) if columns[1] == "label" else []
    codes = {name: code for code, name in enumerate(names)}
    labels = {
        split: torch.tensor([codes.get(row[1], 0) for row in rows[split]]) for split in SPLITS
    }
    users = {} if names else {columns[1]: np.array([row[1] for row in rows["train"]])}
    return Texts(
        texts=[row[-1] for row in rows["train"]],
        labels=labels["train"],
        test_texts=[row[-1] for row in rows["test"]],
        test_labels=labels["test"],
        num_classes=max(1, len(names)),
        columns=users,
        length=length,
        vocabulary=vocabulary,
        tokeniser=tokeniser,
        task=task,
    )


def _distinct(table: Sequence[Sequence[str]]) -> dict[str, list[Sequence[str]]]:
    """Return the rows of each split in order, of copies of a text the first row alone."""
    rows, texts = {split: [] for split in SPLITS}, set()
    for row in table:
        if row[-1] not in texts:
            rows[row[0]].append(row)
            texts.add(row[-1])
    return rows


def _rows(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """Return the rows of a file without its header."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: {TEXT.rule}, got {error.reason}") from None
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    if rows[0] != list(columns):
        raise ValueError(f"{path.name}: {HEADER.rule}: {', '.join(columns)}; got {rows[0][:9]}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(columns):
            raise ValueError(f"{path.name}, line {number}: {COUNT.rule}, got {len(row)}")
        if row[0] not in SPLITS:
            raise ValueError(f"{path.name}, line {number}: {SPLIT.rule}, got '{row[0][:40]}'")
    return rows[1:]
