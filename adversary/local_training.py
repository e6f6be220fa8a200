"""Local training of rehearsed clients: one by one, or together (`fedsim.models.together`).

In: what the client under attack was sent, and each rehearsed client's examples with all that is
drawn for it. Out: its upload, without a defense on uploads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from adversary.workspace import loaded
from fedsim.core import devices
from fedsim.core.boundary import PASSING
from fedsim.core.devices import device_of, here, moved, on
from fedsim.core.form import Form
from fedsim.core.params import subtract
from fedsim.core.rng import global_state, global_stream
from fedsim.core.sgd import descend, mean_gradient, shuffled
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params
from fedsim.models.batching import DRAWS, batching, refusal
from fedsim.models.fitting import fitting
from fedsim.models.together import OneByOne, train_together
from fedsim.models.trial import parameters_of

WEIGHTS = 2**24  # of the clients that train together, at most: 64 MiB in float32
NUMBERS = 2**22  # in the inputs of one step of all of them


@dataclass(frozen=True, eq=False)
class Client:
    """A client to rehearse, with all that is drawn for it beforehand.

    Attributes:
        inputs: Its examples.
        labels: Theirs.
        steps: Positions of the examples of each of its steps.
        seed: Of what dropout leaves out.
        coins: What a defense inside training draws from.
    """

    inputs: Tensor
    labels: Tensor
    steps: Sequence[Int[Tensor, " _"]]
    seed: int
    coins: Generator


@dataclass(frozen=True)
class Grouping:
    """How many clients train together.

    Attributes:
        size: At most; 1: one by one.
        mixes: As `fedsim.models.batching.Batching` has it.
        reason: Why it is one, although the adversary may train several together; else empty.
    """

    size: int = 1
    mixes: bool = False
    reason: str = ""


def grouping(local: LocalTraining, auxiliary: Auxiliary, client: Client, defense: Any) -> Grouping:
    """Return how many clients train together with one.

    On the CPU by shapes alone, so that results are the same on every machine: memory is bounded,
    and models gain nothing whose stacked weights leave the cache. On an accelerator as many as fit
    into its memory when the first of their size is rehearsed.
    """
    rehearsals, shape = auxiliary.rehearsals, tuple(client.inputs.shape[1:])
    if rehearsals.batch < 2:
        return Grouping()
    if defense is not None and (defense.gradient is not None or defense.batches is not None):
        return Grouping(reason="the defense works inside training")
    if not len(client.labels):
        return Grouping(reason="the client has no examples")
    tokens = None if auxiliary.vocabulary is None else len(auxiliary.vocabulary)
    form = Form(
        shape, auxiliary.num_classes, client.inputs.dtype, tokens, per_token=auxiliary.per_token
    )
    model, memory = auxiliary.model, rehearsals.memory
    size = max(map(len, client.steps))
    largest = max(size, min(local.batch_size, 1 << (size - 1).bit_length()))  # few are tried
    compute = lambda: batching(model, form, local, largest)
    trial = memory.get(batching, (model, form, largest), compute)
    if trial.hindrance:
        return Grouping(reason=trial.hindrance)
    if (free := devices.free_memory(auxiliary.device)) is not None:
        many = lambda: fitting(model, form, size, free)
        return Grouping(
            min(rehearsals.batch, memory.get(fitting, (model, form, size), many)), trial.mixes
        )
    weights = sum(value.numel() for value in model.state_dict().values())
    most = min(WEIGHTS // max(1, weights), NUMBERS // max(1, size * prod(shape)))
    if most < 2:
        return Grouping(
            reason=f"two clients have more than {WEIGHTS:,} weights or {NUMBERS:,} inputs of a step"
        )
    return Grouping(min(rehearsals.batch, most), trial.mixes)


def trained(
    observation: Observation,
    auxiliary: Auxiliary,
    model: nn.Module,
    clients: Sequence[Client],
    group: Grouping,
    defense: Any,
) -> Iterator[Observation]:
    """Yield what some clients upload that train together, or, where they cannot, one by one.

    Those are counted in `auxiliary.rehearsals`.
    """
    reason = group.reason
    if len(clients) > 1:
        try:
            uploads = _train_together(observation, model, clients, mixes=group.mixes)
        except PASSING:
            raise
        except Exception as error:  # what the model raises one by one is the attack's
            reason = refusal(error)
        else:
            yield from uploads
            return
    if reason:
        auxiliary.rehearsals.alone[reason] += len(clients)
    for client in clients:
        yield train_alone(observation, model, client, defense)


def drawn(
    local: LocalTraining, inputs: Tensor, labels: Tensor, coins: Generator, defense: Any
) -> Client:
    """Draw the order of a client's examples."""
    batches = (defense is not None and defense.batches) or shuffled
    seed = int(torch.randint(2**62, (1,), generator=coins))
    if local.upload == "gradient":
        steps = [torch.arange(len(labels))]
    else:
        steps = batches(len(labels), local, coins)
    return Client(inputs, labels, steps, seed, coins)


def train_alone(
    observation: Observation, model: nn.Module, client: Client, defense: Any
) -> Observation:
    """Return what a client uploads that trains by itself, where the model is."""
    home = here()
    with on(device_of(model)):
        state = moved(_trained_alone(observation, model, client, defense), home)
    if observation.local.upload == "weights":
        state = subtract(state, {name: observation.sent[name] for name in state})
    return _uploaded(observation, state, client)


def _trained_alone(
    observation: Observation, model: nn.Module, client: Client, defense: Any
) -> Params:
    """Return a client's trained state, or the gradient of its batch."""
    device, local = device_of(model), observation.local
    loaded(model, observation.sent)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    hook = (defense is not None and defense.gradient) or mean_gradient

    def gradient(batch: Tensor) -> Sequence[Tensor]:
        inputs, labels = moved((client.inputs[batch], client.labels[batch]), device)
        return hook(model, trained, inputs, labels, local, client.coins)

    with global_stream(client.seed, "rehearsal"):
        if local.upload == "gradient":
            return dict(zip(trained, gradient(client.steps[0]), strict=True))
        descend(list(trained.values()), local, client.steps, gradient)
        return model.state_dict()


def _train_together(
    observation: Observation, model: nn.Module, clients: Sequence[Client], *, mixes: bool
) -> list[Observation]:
    """Return what some clients upload that train at the same time.

    Raises:
        OneByOne: The model does more than the trial showed.
        Exception: Whatever the model raises.
    """
    sent, local = {name: observation.sent[name] for name in model.state_dict()}, observation.local
    ends = accumulate(len(client.labels) for client in clients)
    steps = [
        [batch + (end - len(client.labels)) for batch in client.steps]
        for client, end in zip(clients, ends, strict=True)
    ]
    inputs = torch.cat([client.inputs for client in clients])
    labels = torch.cat([client.labels for client in clients])
    with global_stream(clients[0].seed, "rehearsal"):
        before = global_state()
        same = [sent] * len(clients)
        states = train_together(model, same, inputs, labels, steps, local, mixes=mixes)
        if global_state() != before:
            raise OneByOne(DRAWS)
    uploads = []
    for client, state in zip(clients, states, strict=True):
        if local.upload == "gradient":
            delta = {name: state[name] for name in parameters_of(model)}
        else:
            delta = subtract(state, sent)
        uploads.append(_uploaded(observation, delta, client))
    return uploads


def _uploaded(observation: Observation, delta: Params, client: Client) -> Observation:
    delta, count = {name: value.detach() for name, value in delta.items()}, len(client.labels)
    update = replace(observation.update, delta=delta, num_examples=count, num_clients=1)
    return replace(observation, update=update)
