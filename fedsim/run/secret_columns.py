"""Which training rows have the secret attribute or property, or whose they are."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fedsim.config.game import Game
from fedsim.core.errors import ConfigError, nearest
from fedsim.core.secrets import Encoding
from fedsim.data import Dataset


def marks(asked: Game, dataset: Dataset, *, users: bool) -> Int[Tensor, " n"]:
    """Return a mark per training row.

    Args:
        asked: The section of the config.
        dataset: With the column.
        users: Whether the secret is whose the rows are: 0 for the one with most rows, and so on,
            −1 for all after the first `asked.users`; else 1 where the row has the property.

    Raises:
        ConfigError: There is no such column or value.
    """
    if asked.column is None:
        raise ConfigError("game.column: must name the secret column, got none")
    if asked.column not in dataset.columns:
        there = list(dataset.columns)
        hint = f"; {nearest(asked.column, there)}" if there else ""
        raise ConfigError(f"game.column: must be a column, got '{asked.column}'{hint}")
    column = dataset.columns[asked.column]
    if users:
        names, places, counts = np.unique(column, return_inverse=True, return_counts=True)
        if len(names) < asked.users:
            raise ConfigError(f"game.users: must be at most {len(names)}, got {asked.users}")
        rank = np.full(len(names), -1)
        rank[np.argsort(-counts, kind="stable")[: asked.users]] = np.arange(asked.users)
        return torch.from_numpy(rank[places])
    if asked.above is not None:
        try:
            return torch.from_numpy((column.astype(float) > asked.above).astype(np.int64))
        except ValueError:
            raise ConfigError(f"game.above: must go with numbers, got {asked.column}") from None
    text = column.astype(str)
    if asked.value is None or asked.value not in text:
        some = sorted(set(text))
        got = f"'{asked.value}'; {nearest(asked.value, some)}" if asked.value else "none"
        raise ConfigError(f"game.value: must be a value of {asked.column}, got {got}")
    return torch.from_numpy((text == asked.value).astype(np.int64))


def encoding(asked: Game, dataset: Dataset) -> Encoding | None:
    """Return how to set the attribute in the inputs; None where it is not among them.

    A record without it has the most frequent other value.
    """
    attribute: Any = dataset.attributes.get(asked.column or "")
    if attribute is None or asked.value not in attribute.values:
        return None
    text = dataset.columns[str(asked.column)].astype(str)
    others, counts = np.unique(text[text != asked.value], return_counts=True)
    usual = attribute.values.index(str(others[counts.argmax()]))
    present = attribute.values.index(asked.value)
    columns = torch.tensor(attribute.columns)
    return Encoding(columns, attribute.codes[usual], attribute.codes[present])
