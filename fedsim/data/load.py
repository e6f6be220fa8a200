"""Loading: the config's `data` comes in, a Dataset goes out."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedsim.config import Data
from fedsim.core.boundary import boundary
from fedsim.core.catalog import check_options, find_entry
from fedsim.core.errors import ConfigError, nearest, one_line
from fedsim.core.paths import user_path
from fedsim.core.rng import generator
from fedsim.data.check import checked
from fedsim.data.check_texts import checked_texts
from fedsim.data.ids import checked_ids, read_ids
from fedsim.data.places import root_of, wanted
from fedsim.data.registry import DATASETS
from fedsim.data.types import Dataset, Texts


def load(data: Data, seed: int) -> Dataset | Texts:
    """Load the data set that a config names, cut to `limit` rows drawn at random.

    Texts are not token ids yet: their tokeniser is learned from the adversary's share.

    Raises:
        ConfigError: The name or an option is unknown, the data cannot be read, or they break a
            rule of `fedsim.data.check`.
    """
    make = find_entry("data.name", data.name, DATASETS, "datasets").make
    options = check_options("data", make, data.options, beside=type(data).model_fields)
    root = root_of(data.name, data.root)
    if data.name in DATASETS:
        dataset = _published(make, data.name, root, options)
    else:
        dataset = _foreign(make, data.name, root, options)
    dataset = (
        checked_texts(data.name, dataset)
        if isinstance(dataset, Texts)
        else checked(data.name, dataset)
    )
    if data.users is not None:
        dataset = _with_ids(dataset, data.users)
    if data.limit is None or data.limit >= len(dataset.labels):
        return dataset
    return _limited(dataset, data.limit, seed)


def _published(
    make: Callable[..., Dataset | Texts], name: str, root: Path, options: Any
) -> Dataset | Texts:
    """Return what one of fedsim's own loaders reads in its folder."""
    try:
        return make(root, **options)
    except ConfigError:
        raise
    except Exception as error:  # whatever a damaged file leads its reader to
        raise ConfigError(
            f"data.root: '{name}' must be readable in {root} ({one_line(error)})"
            + wanted(name, root)
        ) from error


def _foreign(make: Callable[..., Any], name: str, root: Path, options: Any) -> Dataset | Texts:
    """Return what a user's own function returns; what it raises is shown as its own."""
    try:
        inspect.signature(make).bind(root, **options)
    except TypeError as error:
        raise ConfigError(
            f"data.name: '{name}' must be a function that takes a folder ({error})"
        ) from None
    with boundary("data.name", f"'{name}' must return a Dataset"):
        dataset = make(root, **options)
    if not isinstance(dataset, Dataset | Texts):
        got = type(dataset).__name__
        raise ConfigError(f"data.name: must return a Dataset or Texts, got {got}")
    return dataset


def _with_ids(dataset: Dataset | Texts, users: str) -> Dataset | Texts:
    """Return the data set with ids of users that can be told apart, from a column or a file."""
    if users in dataset.columns:
        ids = checked_ids(dataset.columns[users], users)
    else:
        path = user_path("data.users", users)
        if not path.is_file():
            raise ConfigError(
                f"data.users: must be a column or a file with an id per row, got '{users}'"
                + (f"; {nearest(users, dataset.columns)}" if dataset.columns else "")
            )
        ids = read_ids(path, len(dataset.labels))
    return replace(dataset, columns={**dataset.columns, users: ids})


def _limited(dataset: Dataset | Texts, limit: int, seed: int) -> Dataset | Texts:
    """Return a data set with so many training rows, drawn at random."""
    rows = torch.randperm(len(dataset.labels), generator=generator(seed, "limit"))[:limit]
    labels = dataset.labels[rows]
    columns = {key: column[rows] for key, column in dataset.columns.items()}
    if isinstance(dataset, Texts):
        texts = [dataset.texts[row] for row in rows.tolist()]
        return replace(dataset, texts=texts, labels=labels, columns=columns)
    targets = None if dataset.targets is None else dataset.targets[rows]
    inputs = dataset.inputs[rows]
    return replace(dataset, inputs=inputs, labels=labels, targets=targets, columns=columns)
