"""Partitions: which client holds which rows of the training set."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedsim.core.errors import ConfigError
from fedsim.core.rng import derive

Rows = NDArray[np.int64]


def iid(num_examples: int, num_clients: int, seed: int) -> list[Rows]:
    """Deal the rows out at random in parts of equal size (±1)."""
    return _split(_stream(seed).permutation(num_examples), num_clients)


def dirichlet(labels: ArrayLike, num_clients: int, seed: int, *, alpha: float) -> list[Rows]:
    """Give each client a share of each class drawn from a Dirichlet(alpha) over clients.

    Every client ends with at least one row: one with none takes a row from the largest.

    Source: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", 2019; per class over clients as in Yurochkin et al. 2019.
    """
    stream, labels = _stream(seed), np.asarray(labels)
    parts: list[list[Rows]] = [[] for _ in range(num_clients)]
    for value in np.unique(labels):
        rows = stream.permutation(np.flatnonzero(labels == value))
        share = stream.dirichlet(np.full(num_clients, alpha))
        cuts = np.floor(np.cumsum(share)[:-1] * len(rows)).astype(np.int64)
        for part, chunk in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chunk)
    clients = [stream.permutation(np.concatenate(part)) for part in parts]
    for client, rows in enumerate(clients):
        if len(rows) == 0:
            largest = max(range(num_clients), key=lambda other: len(clients[other]))
            clients[client], clients[largest] = clients[largest][:1], clients[largest][1:]
    return clients


def shards(labels: ArrayLike, num_clients: int, seed: int, *, per_client: int) -> list[Rows]:
    """Sort by label, cut into equal shards and deal `per_client` of them to each client.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", AISTATS 2017, section 3 ("pathological non-IID").
    """
    stream, labels = _stream(seed), np.asarray(labels)
    order = stream.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    pieces = _split(order, num_clients * per_client)
    dealt = stream.permutation(len(pieces)).reshape(num_clients, per_client)
    return [np.concatenate([pieces[piece] for piece in row]) for row in dealt]


def by_user(ids: ArrayLike, num_clients: int, seed: int) -> list[Rows]:
    """Deal whole users out at random, so that all rows of a user are with one client.

    Raises:
        ConfigError: There are fewer users than clients.
    """
    users, user_of = np.unique(np.asarray(ids), return_inverse=True)
    if len(users) < num_clients:
        raise ConfigError(
            f"federation.clients: must be at most the number of users = {len(users)}, "
            f"got {num_clients}"
        )
    dealt = _split(_stream(seed).permutation(len(users)), num_clients)
    client_of = np.empty(len(users), dtype=np.int64)
    for client, part in enumerate(dealt):
        client_of[part] = client
    owners = client_of[user_of]
    order = np.argsort(owners, kind="stable")  # each client's rows stay in order
    return np.split(order, np.searchsorted(owners[order], np.arange(1, num_clients)))


def _split(rows: Rows, num_parts: int) -> list[Rows]:
    if len(rows) < num_parts:
        raise ConfigError(
            f"federation.clients: must leave an example for each of {num_parts} parts, "
            f"got {len(rows)} examples"
        )
    parts: Sequence[Rows] = np.array_split(rows, num_parts)
    return list(parts)


def _stream(seed: int) -> np.random.Generator:
    return np.random.default_rng(derive(seed, "partition"))
