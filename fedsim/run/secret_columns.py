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

SAME = 0.999  # correlation of a column and an input feature, from which they are the same


def marks(game: Game, dataset: Dataset, *, users: bool) -> Int[Tensor, " n"]:
    """Return a mark per training row.

    Args:
        game: The section of the config.
        dataset: With the column.
        users: Whether the secret is whose the rows are: 0 for the one with most rows, and so on,
            −1 for all after the first `game.users`; else 1 where the row has the property.

    Raises:
        ConfigError: There is no such column or value.
    """
    if game.column is None:
        raise ConfigError("game.column: must name the secret column, got none")
    if game.column not in dataset.columns:
        available = list(dataset.columns)
        hint = f"; {nearest(game.column, available)}" if available else ""
        raise ConfigError(f"game.column: must be a column, got '{game.column}'{hint}")
    column = dataset.columns[game.column]
    if users:
        names, places, counts = np.unique(column, return_inverse=True, return_counts=True)
        if len(names) < game.users:
            raise ConfigError(f"game.users: must be at most {len(names)}, got {game.users}")
        rank = np.full(len(names), -1)
        rank[np.argsort(-counts, kind="stable")[: game.users]] = np.arange(game.users)
        return torch.from_numpy(rank[places])
    if game.above is not None:
        try:
            return torch.from_numpy((column.astype(float) > game.above).astype(np.int64))
        except ValueError:
            raise ConfigError(f"game.above: must go with numbers, got {game.column}") from None
    text = column.astype(str)
    if game.value is None or game.value not in text:
        some = sorted(set(text))
        got = f"'{game.value}'; {nearest(game.value, some)}" if game.value else "none"
        raise ConfigError(f"game.value: must be a value of {game.column}, got {got}")
    return torch.from_numpy((text == game.value).astype(np.int64))


def encoding(game: Game, dataset: Dataset) -> Encoding | None:
    """Return how to set the attribute in the inputs; None where it is not among them.

    A record without it has the most frequent other value.
    """
    attribute: Any = dataset.attributes.get(game.column or "")
    if attribute is None or game.value not in attribute.values:
        return None
    text = dataset.columns[str(game.column)].astype(str)
    others, counts = np.unique(text[text != game.value], return_counts=True)
    usual = attribute.values.index(str(others[counts.argmax()]))
    present = attribute.values.index(game.value)
    columns = torch.tensor(attribute.columns)
    return Encoding(columns, attribute.codes[usual], attribute.codes[present])


def telling_features(game: Game, dataset: Dataset) -> frozenset[int]:
    """Return which input features are the secret column itself, encoded or rescaled."""
    name = str(game.column)
    if (attribute := dataset.attributes.get(name)) is not None:
        return frozenset(attribute.columns)
    try:
        column = torch.from_numpy(dataset.columns[name].astype(np.float64))
    except ValueError:  # words
        return frozenset()
    present = column.isfinite()
    inputs, column = dataset.inputs[present].flatten(1).double(), column[present]
    inputs, column = inputs - inputs.mean(dim=0), column - column.mean()
    along = (column @ inputs).abs()
    same = along > SAME * column.norm() * inputs.norm(dim=0)
    return frozenset(torch.nonzero(same)[:, 0].tolist())
