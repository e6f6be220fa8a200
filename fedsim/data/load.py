"""Data sets, and what of them each party of a federation holds."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from fedsim.config import Config, Federation, parse_json
from fedsim.core.catalog import check_options, find, with_extensions
from fedsim.core.errors import ConfigError, nearest, one_line
from fedsim.core.rng import generator
from fedsim.data import partition
from fedsim.data.images import (
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    mnist,
    olivetti,
    pneumonia_mnist,
    svhn,
)
from fedsim.data.tables import adult, heart_disease, uci_har
from fedsim.data.types import Attribute, Dataset  # noqa: F401 (Attribute is a type of this room)


@dataclass(frozen=True)
class Federated:
    """A data set dealt out: rows of the training set for each client and the adversary."""

    dataset: Dataset
    clients: tuple[Int[Tensor, " _"], ...]
    auxiliary: Int[Tensor, " _"]


DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "olivetti": olivetti,
    "pneumonia-mnist": pneumonia_mnist,
    "adult": adult,
    "heart-disease": heart_disease,
    "uci-har": uci_har,
}


def load(config: Config) -> Dataset:
    """Load the data set that the config names, cut to `data.limit` rows drawn at random.

    Raises:
        ConfigError: The name or an option is unknown, or the data cannot be read.
    """
    name = config.data.name
    function = find("data.name", name, with_extensions(DATASETS, "datasets"))
    options = check_options("data", function, config.data.options)
    root = Path(config.data.root or Path.home() / ".cache" / "fedsim" / name).expanduser()
    try:
        dataset = function(root, **options)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        reason = one_line(error)
        raise ConfigError(f"data.root: '{name}' must be readable in {root} ({reason})") from None
    except TypeError as error:
        raise ConfigError(f"data.name: '{name}' must be a function of a folder ({error})") from None
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"data.name: must return a Dataset, got {type(dataset).__name__}")
    users = config.data.users
    if users is not None and users not in dataset.columns:
        ids = _read_ids(users, dataset)
        dataset = replace(dataset, columns={**dataset.columns, users: ids})
    if config.data.limit is None or config.data.limit >= len(dataset.labels):
        return dataset
    stream = generator(config.seed, "limit")
    rows = torch.randperm(len(dataset.labels), generator=stream)[: config.data.limit]
    return replace(
        dataset,
        inputs=dataset.inputs[rows],
        labels=dataset.labels[rows],
        columns={key: column[rows] for key, column in dataset.columns.items()},
    )


def federate(config: Config) -> Federated:
    """Load the data set, hold out the adversary's share and deal the rest to the clients.

    The last one is kept: server, clients and adversary of one process share it.

    Raises:
        ConfigError: The data cannot be read or do not suffice for the clients.
    """
    parts = {"seed", "data", "auxiliary"}
    clients = Federation(clients=config.federation.clients)
    decisive = Config(federation=clients, **{name: getattr(config, name) for name in parts})
    return _federate(decisive.model_dump_json())


def alone(config: Config) -> Federated:
    """Load a data set that is all one client's: nothing is dealt out or held back.

    Raises:
        ConfigError: The data cannot be read.
    """
    dataset = load(config)
    rows = torch.arange(len(dataset.labels))
    return Federated(dataset, (rows,), rows[:0])


@lru_cache(maxsize=1)
def _federate(text: str) -> Federated:
    config = parse_json(text)
    dataset = load(config)
    order = torch.randperm(len(dataset.labels), generator=generator(config.seed, "auxiliary"))
    held_out = round(config.auxiliary.share * len(order))
    auxiliary, private = order[:held_out].sort().values, order[held_out:].sort().values
    rows = private.numpy()
    labels, data = dataset.labels[private].numpy(), config.data
    num_clients, seed = config.federation.clients, config.seed
    if num_clients > len(rows):
        raise ConfigError(
            f"federation.clients: must be at most the {len(rows)} private examples, "
            f"got {num_clients}"
        )
    if data.partition == "iid":
        parts = partition.iid(len(rows), num_clients, seed)
    elif data.partition == "dirichlet":
        parts = partition.dirichlet(labels, num_clients, seed, alpha=data.alpha)
    elif data.partition == "shards":
        parts = partition.shards(labels, num_clients, seed, per_client=data.shards)
    else:
        ids = dataset.columns[str(data.users)]
        parts = partition.by_user(ids[rows], num_clients, seed)
    clients = tuple(torch.from_numpy(rows[part]) for part in parts)
    return Federated(dataset, clients, auxiliary)


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
