"""Which clients can train together, and their tasks trained so.

In: a site, or tasks that were accepted. Out: what stands in the way, found by trials on copies of
the model; or what `clients.train.train` gives for each task.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from clients.operator import Site
from clients.task import Ready
from clients.together import OneByOne, train_together
from clients.train import train
from fedsim import models
from fedsim.core.boundary import PASSING, raised
from fedsim.core.params import norm, subtract
from fedsim.core.rng import generator, global_state, global_stream
from fedsim.models.copying import copied

DTYPES = (torch.float32, torch.float64)
TOLERANCE = 1e-4  # of a trial's gradient; one of another model or loss is off by far more
DRAWS = "the model draws random numbers while it trains"
TRIAL = (4, 3)  # examples of the clients of a trial: the second is filled up


@dataclass(frozen=True)
class Batching:
    """How clients of a site train together.

    Attributes:
        hindrance: Why they cannot; empty if they can.
        mixes: Whether examples of a batch change each other's logits: only batches of one size go
            together then, because no padding is exact.
    """

    hindrance: str = ""
    mixes: bool = False


def batching(site: Site) -> Batching:
    """Return how clients of a site train together, by trials on copies of its model."""
    try:
        mixes = models.mixing_layer(site.model, site.federated.dataset.form) is not None
        return Batching(_hindrance(site, mixes=mixes), mixes)
    except PASSING:
        raise
    except BaseException as error:  # foreign code may want to end the process
        return Batching(refusal(error))


def _hindrance(site: Site, *, mixes: bool) -> str:
    """Return why clients of a site cannot train together; empty if they can."""
    model, form, defense = site.model, site.federated.dataset.form, site.defense
    if defense.gradient is not None or defense.batches is not None:
        return f"the defense {defense.name} works inside training"
    state = model.state_dict()
    if odd := [name for name in site.trainable if state[name].dtype not in DTYPES]:
        return f"{odd[0]} is of {state[odd[0]].dtype}"
    if moved := models.moved_state(model, form):
        return f"{moved[0]} moves while the model trains"
    if models.remembers(model, form):
        return "the model remembers earlier batches"
    if models.draws(model, form):
        return DRAWS
    apart = _difference(site, mixes=mixes)
    return f"vmap changes the gradient by {apart:.1e} of it" if apart > TOLERANCE else ""


def _difference(site: Site, *, mixes: bool) -> float:
    """Return by how much gradients of two clients differ from those taken one by one.

    The largest norm of a difference, in units of the gradient's; infinite where one is NaN.
    """
    config, form, sent = site.config, site.federated.dataset.form, dict(site.model.state_dict())
    local = replace(config.local_training(), batch_size=max(TRIAL), epochs=1, upload="gradient")
    inputs, labels = models.batch(form, sum(TRIAL))
    parts = torch.arange(sum(TRIAL)).split(list(TRIAL))
    together = train_together(
        *(copied(site.model), [sent] * len(parts), inputs, labels),
        *([[part] for part in parts], local),
        mixes=mixes,
    )
    largest = 0.0
    for part, state in zip(parts, together, strict=True):
        model, order = copied(site.model), generator(0, "trial")
        alone, _ = train(model, sent, inputs[part], labels[part], local, generator=order)
        plain = {name: alone[name] for name in site.trainable}
        apart = float(norm(subtract(plain, state)) / norm(plain))
        largest = max(largest, apart if math.isfinite(apart) else math.inf)
    return largest


def refusal(error: BaseException) -> str:
    """Return what hinders clients whose joint training raised an error."""
    return (
        str(error) if isinstance(error, OneByOne) else f"the model refuses vmap ({raised(error)})"
    )


def trained_together(
    clients: Sequence[Ready], *, mixes: bool
) -> list[tuple[dict[str, Tensor], Int[Tensor, " _"]]]:
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
