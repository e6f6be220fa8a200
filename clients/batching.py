"""Tasks of clients that train together.

In: a site, or tasks that were accepted. Out: what stands in the way, or what `clients.train.train`
gives for each task.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from clients.site import Site
from clients.task import Ready
from fedsim.core.rng import global_state, global_stream
from fedsim.core.types import Params
from fedsim.models.batching import DRAWS, Batching
from fedsim.models.batching import batching as batching_of
from fedsim.models.together import OneByOne, train_together


def batching(site: Site) -> Batching:
    """Return how clients of a site train together."""
    defense = site.defense
    if defense.gradient is not None or defense.batches is not None:
        return Batching(f"the defense {defense.name} works inside training")
    local, federated = site.config.local_training(), site.federated
    largest = min(local.batch_size, max(map(len, federated.clients)))
    return batching_of(site.model, federated.dataset.form, local, largest)


def trained_together(
    clients: Sequence[Ready], *, mixes: bool
) -> list[tuple[Params, Int[Tensor, " _"]]]:
    """Train clients of one site, with one protocol.

    Args:
        clients: Their tasks.
        mixes: As in `Batching`.

    Returns:
        For each what `clients.train.train` returns.

    Raises:
        OneByOne: The model does more than the trial showed.
        Exception: Whatever the model raises.
    """
    site, local = clients[0].task.site, clients[0].local
    dataset, seed = site.federated.dataset, site.config.seed
    steps = [client.steps() for client in clients]
    rows = [
        [client.examples.rows[batch] for batch in each]
        for client, each in zip(clients, steps, strict=True)
    ]
    with global_stream(seed, "train", "together"):
        before = global_state()
        states = train_together(
            site.working_model(),
            [client.task.sent for client in clients],
            *(dataset.inputs, dataset.y),
            rows,
            local,
            mixes=mixes,
        )
        if global_state() != before:
            raise OneByOne(DRAWS)
    return [(state, torch.cat(each)) for state, each in zip(states, steps, strict=True)]
