"""Loading: the config's `data` comes in, a Dataset goes out."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.config import Data
from fedsim.core.catalog import check_options, find_entry
from fedsim.core.errors import ConfigError, nearest, one_line
from fedsim.core.rng import generator
from fedsim.data.registry import DATASETS
from fedsim.data.types import Dataset

UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)


def load(data: Data, seed: int) -> Dataset:
    """Load the data set that a config names, cut to `limit` rows drawn at random.

    Raises:
        ConfigError: The name or an option is unknown, or the data cannot be read.
    """
    make = find_entry("data.name", data.name, DATASETS, "datasets").make
    dataset = _read(make, data, check_options("data", make, data.options))
    if data.users is not None and data.users not in dataset.columns:
        ids = _read_ids(data.users, dataset)
        dataset = replace(dataset, columns={**dataset.columns, data.users: ids})
    if data.limit is None or data.limit >= len(dataset.labels):
        return dataset
    return _limited(dataset, data.limit, seed)


def _read(make: Callable[..., Any], data: Data, options: dict[str, Any]) -> Dataset:
    """Return what a data set's function reads in its folder; what it raises is one sentence."""
    root = Path(data.root or Path.home() / ".cache" / "fedsim" / data.name).expanduser()
    try:
        dataset = make(root, **options)
    except UNREADABLE as error:
        raise ConfigError(
            f"data.root: '{data.name}' must be readable in {root} ({one_line(error)})"
        ) from None
    except TypeError as error:
        raise ConfigError(
            f"data.name: '{data.name}' must be a function that takes a folder ({error})"
        ) from None
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"data.name: must return a Dataset, got {type(dataset).__name__}")
    return dataset


def _limited(dataset: Dataset, limit: int, seed: int) -> Dataset:
    """Return a data set with so many training rows, drawn at random."""
    rows = torch.randperm(len(dataset.labels), generator=generator(seed, "limit"))[:limit]
    return replace(
        dataset,
        inputs=dataset.inputs[rows],
        labels=dataset.labels[rows],
        columns={key: column[rows] for key, column in dataset.columns.items()},
    )


def _read_ids(users: str, dataset: Dataset) -> NDArray[Any]:
    """Return an id per training row from a file with one a row."""
    path = Path(users).expanduser()
    if not path.exists():
        raise ConfigError(
            f"data.users: must be a column or a file with an id per row, got '{users}'"
            + (f"; {nearest(users, dataset.columns)}" if dataset.columns else "")
        )
    try:
        ids = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, dtype=str, ndmin=1)
    except ValueError as error:
        raise ConfigError(f"data.users: must hold one id per row, got {path} ({error})") from None
    if len(ids) != len(dataset.labels):
        raise ConfigError(
            f"data.users: must hold an id for each of {len(dataset.labels)} rows, got {len(ids)}"
        )
    return ids
