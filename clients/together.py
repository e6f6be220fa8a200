"""Local training of many clients at once: their weights stacked, one `vmap` over the clients.

In: tasks that were accepted. Out: what `clients.train.train` gives for each of them, from the same
batches; the floats differ by rounding. `batching` names what stands in the way.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from clients.operator import Site
from clients.task import Ready
from clients.train import train
from fedsim import models
from fedsim.core.boundary import PASSING, raised
from fedsim.core.params import norm, subtract
from fedsim.core.rng import generator, global_state, global_stream
from fedsim.core.sgd import Descent, gradients
from fedsim.core.types import LocalTraining, Params

DTYPES = (torch.float32, torch.float64)
TOLERANCE = 1e-4  # of a trial's gradient; one of another model or loss is off by far more
DRAWS = "the model draws random numbers while it trains"
TRIAL = (4, 3)  # examples of the clients of a trial: the second is filled up


class OneByOne(Exception):
    """Clients cannot train together; says why."""


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
        *(copy.deepcopy(site.model), [sent] * len(parts), inputs, labels),
        *([[part] for part in parts], local),
        mixes=mixes,
    )
    largest = 0.0
    for part, state in zip(parts, together, strict=True):
        model, order = copy.deepcopy(site.model), generator(0, "trial")
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
) -> list[tuple[dict[str, Tensor], Int[Tensor, " uses"]]]:
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
            copy.deepcopy(site.model),  # nothing that it keeps is for the next clients
            [client.task.sent for client in clients],
            *(dataset.inputs, dataset.labels),
            rows,
            local,
            mixes=mixes,
        )
        if global_state() != before:
            raise OneByOne(DRAWS)
    return [(state, torch.cat(each)) for state, each in zip(states, steps, strict=True)]


def train_together(
    model: nn.Module,
    sent: Sequence[Params],
    inputs: Num[Tensor, "n *shape"],
    labels: Int[Tensor, " n"],
    steps: Sequence[Sequence[Int[Tensor, " b"]]],
    local: LocalTraining,
    *,
    mixes: bool,
) -> list[dict[str, Tensor]]:
    """Train clients with given batches, all at the same time.

    Args:
        model: The architecture; its weights are not used.
        sent: The state that each was sent, buffers included.
        inputs: The examples of all.
        labels: Their labels.
        steps: For each client the rows of the examples of each of its steps, none empty.
        local: Learning rate, momentum, FedProx's pull, what to upload.
        mixes: As in `Batching`.

    Returns:
        The state that each uploads.

    Raises:
        OneByOne: A buffer moved.
    """
    order = sorted(range(len(steps)), key=lambda client: -len(steps[client]))
    state = _stacked(model, [sent[client] for client in order])
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    moving = {name: state[name] for name in names}
    still = {name: value for name, value in state.items() if name not in moving}
    before = {name: value.clone() for name, value in still.items()}
    losses = _Losses(model.train(), local, still)

    def at(number: int) -> tuple[list[Tensor], int]:
        """Return the slopes of the clients that have so many steps; they come first."""
        batches = [steps[client][number] for client in order if len(steps[client]) > number]
        return losses.slopes(moving, _groups(batches, mixes=mixes), inputs, labels), len(batches)

    if local.upload == "gradient":
        state |= dict(zip(names, at(0)[0], strict=True))
    else:
        descent = Descent(list(moving.values()), local)
        for number in range(len(steps[order[0]])):
            descent.step(*at(number))
    if odd := models.changed(before, still, before):
        raise OneByOne(f"{odd[0]} moves while the model trains")
    rows = zip(*(value.unbind() for value in state.values()), strict=True)
    uploads = dict(zip(order, (dict(zip(state, row, strict=True)) for row in rows), strict=True))
    return [uploads[client] for client in range(len(steps))]


def _stacked(model: nn.Module, sent: Sequence[Params]) -> dict[str, Tensor]:
    """Return the clients' states in one, in the model's types: a row for each client."""
    like, first = model.state_dict(), sent[0]
    if all(each is first for each in sent):
        count = len(sent)
        rows = {n: first[n].to(v.dtype).expand(count, *v.shape) for n, v in like.items()}
        return {name: value.clone() for name, value in rows.items()}
    return {n: torch.stack([each[n].to(v.dtype) for each in sent]) for n, v in like.items()}


@dataclass(frozen=True)
class _Group:
    """Batches that go through the model together, filled up to one size.

    Attributes:
        places: Whose, among the clients that take the step; None for all of them.
        rows: Rows of their examples, shape (k, b); what fills up is an example of the same batch.
        shares: What each example counts in its client's loss; 0 for what fills up.
    """

    places: Tensor | None
    rows: Int[Tensor, "k b"]
    shares: Float[Tensor, "k b"]


def _groups(batches: Sequence[Int[Tensor, " b"]], *, mixes: bool) -> Iterator[_Group]:
    """Put batches of one size together, or of sizes up to the same power of two, filled up."""
    by_size: dict[int, list[int]] = {}
    for place, batch in enumerate(batches):
        size = len(batch)
        by_size.setdefault(size if mixes else (size - 1).bit_length(), []).append(place)
    for places in by_size.values():
        group = [batches[place] for place in places]
        sizes = torch.tensor([len(batch) for batch in group])
        present = torch.arange(int(sizes.max())) < sizes.unsqueeze(1)
        rows = pad_sequence(list(group), batch_first=True)
        rows = rows.where(present, rows[:, :1])
        shares = present / sizes.unsqueeze(1)
        yield _Group(torch.tensor(places) if len(by_size) > 1 else None, rows, shares)


@dataclass(frozen=True)
class _Losses:
    """The clients' losses as functions of stacked weights.

    Attributes:
        model: While it trains.
        local: The protocol.
        still: What else is in the clients' states, a row for each client.
    """

    model: nn.Module
    local: LocalTraining
    still: Params

    def slopes(
        self, moving: Params, groups: Iterator[_Group], inputs: Tensor, labels: Tensor
    ) -> list[Tensor]:
        """Return the gradient of each client's mean loss, at the first rows of the weights.

        Args:
            moving: The trainable weights, a row for each client.
            groups: The clients' batches.
            inputs: The examples of all.
            labels: Their labels.
        """
        parts = [(it, self._of_group(moving, it, inputs, labels)) for it in groups]
        if parts[0][0].places is None:
            return list(parts[0][1])
        order = torch.cat([it.places for it, _ in parts if it.places is not None]).argsort()
        each = zip(*(slopes for _, slopes in parts), strict=True)
        return [torch.cat(values)[order] for values in each]

    def _of_group(
        self, moving: Params, group: _Group, inputs: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(group.rows)
        rows = slice(count) if group.places is None else group.places
        weights = {n: value[rows].detach().requires_grad_() for n, value in moving.items()}
        still = {name: value[rows] for name, value in self.still.items()}
        examples = (inputs[group.rows], labels[group.rows], group.shares)
        total = vmap(self._loss)(weights, still, *examples).sum()
        return gradients(total, weights)

    def _loss(
        self,
        weights: Mapping[str, Tensor],
        still: Mapping[str, Tensor],
        inputs: Tensor,
        labels: Tensor,
        shares: Tensor,
    ) -> Tensor:
        """Return one client's mean loss."""
        logits = functional_call(self.model, {**still, **weights}, (inputs,))
        smoothing = self.local.label_smoothing
        losses = functional.cross_entropy(
            logits, labels, label_smoothing=smoothing, reduction="none"
        )
        return (losses * shares.to(losses.dtype)).sum()
