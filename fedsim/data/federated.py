"""Dealing out: which rows of a data set each client and the adversary hold."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from fedsim.config import Config, Data
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.data import partition
from fedsim.data.canary import Canary, with_canary
from fedsim.data.coding import coded, tokeniser_for
from fedsim.data.load import load
from fedsim.data.tokeniser import Tokeniser
from fedsim.data.types import Dataset, Texts


@dataclass(frozen=True)
class Federated:
    """A data set dealt out: rows of the training set for each client and the adversary.

    Attributes:
        tokeniser: What made token ids of texts; None where the data are no texts.
        canary: A text with random digits among those of client 0; None without.
    """

    dataset: Dataset
    clients: tuple[Int[Tensor, " _"], ...]
    auxiliary: Int[Tensor, " _"]
    tokeniser: Tokeniser | None = None
    canary: Canary | None = None


def federate(config: Config) -> Federated:
    """Load the data set, hold out the adversary's share and deal the rest to the clients.

    The last one is kept: server, clients and adversary of one process share it.

    Raises:
        ConfigError: The data cannot be read or do not suffice for the clients.
    """
    share, num_clients = config.auxiliary.share, config.federation.clients
    return _federate(config.data.model_dump_json(), share, num_clients, config.seed)


def alone(data: Data, seed: int) -> Federated:
    """Load a data set that is all one client's: nothing is dealt out or held back.

    Raises:
        ConfigError: The data cannot be read.
    """
    loaded = load(data, seed)
    rows = torch.arange(len(loaded.labels))
    dataset, tokeniser = _coded(loaded, rows[:0])
    return Federated(dataset, (rows,), rows[:0], tokeniser)


@lru_cache(maxsize=1)
def _federate(text: str, share: float, num_clients: int, seed: int) -> Federated:
    data = Data.model_validate_json(text)
    loaded = load(data, seed)
    order = torch.randperm(len(loaded.labels), generator=generator(seed, "auxiliary"))
    held_out = round(share * len(order))
    auxiliary, private = order[:held_out].sort().values, order[held_out:].sort().values
    if num_clients > len(private):
        raise ConfigError(
            f"federation.clients: must be at most the {len(private)} private examples, "
            f"got {num_clients}"
        )
    dataset, tokeniser = _coded(loaded, auxiliary)
    rows = private.numpy()
    parts = _parts(data, dataset, rows, num_clients, seed)
    clients = tuple(torch.from_numpy(rows[part]) for part in parts)
    canary = None
    if data.canary:
        dataset, canary = with_canary(data.canary, dataset, tokeniser, int(clients[0][0]), seed)
    return Federated(dataset, clients, auxiliary, tokeniser, canary)


def _coded(loaded: Dataset | Texts, public: Int[Tensor, " _"]) -> tuple[Dataset, Tokeniser | None]:
    """Return texts as token ids, by a tokeniser that has seen public rows alone."""
    if isinstance(loaded, Dataset):
        return loaded, None
    tokeniser = tokeniser_for(loaded, public)
    return coded(loaded, tokeniser), tokeniser


def _parts(
    data: Data, dataset: Dataset, rows: NDArray[np.int64], num_clients: int, seed: int
) -> list[partition.Rows]:
    """Return which of the private rows each client holds, as positions among them."""
    labels = dataset.labels.numpy()[rows]
    if data.partition == "iid":
        return partition.iid(len(rows), num_clients, seed)
    if data.partition == "dirichlet":
        return partition.dirichlet(labels, num_clients, seed, alpha=data.alpha)
    if data.partition == "shards":
        return partition.shards(labels, num_clients, seed, per_client=data.shards)
    return partition.by_user(dataset.columns[str(data.users)][rows], num_clients, seed)
