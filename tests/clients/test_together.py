import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clients.batching import batching
from clients.operator import operator
from clients.site import site
from clients.train import train
from fedsim import config as configs
from fedsim.core.params import norm, subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import shuffled
from fedsim.core.types import LocalTraining
from fedsim.models.together import OneByOne, train_together
from tests.builders import bilinear, same_params, small_config

INPUTS = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(120) % 3
MOST = 1e-5  # relative difference of an upload


def convolutions():
    with global_stream(0, "convolutions"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(64, 3),
        )  # fmt: skip


def batch_statistics():
    with global_stream(0, "statistics"):
        norm_of_batch = nn.BatchNorm1d(6, track_running_stats=False)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), norm_of_batch, nn.Linear(6, 3))


def both_ways(model, local, sizes, *, mixes=False, inputs=INPUTS):
    """Train clients of these sizes together, and one by one."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    rows = [torch.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    orders = [shuffled(size, local, generator(0, i)) for i, size in enumerate(sizes)]
    steps = [[of[batch] for batch in each] for of, each in zip(rows, orders, strict=True)]
    together = train_together(
        copy.deepcopy(model), [sent] * len(sizes), inputs, LABELS, steps, local, mixes=mixes
    )
    alone = [
        train(copy.deepcopy(model), sent, inputs[of], LABELS[of], local, generator=generator(0, i))[
            0
        ]
        for i, of in enumerate(rows)
    ]
    return together, alone


def assert_alike(together, alone):
    for left, right in zip(together, alone, strict=True):
        assert list(left) == list(right)
        assert norm(subtract(left, right)) <= MOST * norm(right)


@pytest.mark.twin
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"momentum": 0.9},
        {"proximal_mu": 0.7},
        {"epochs": 3, "proximal_mu": 0.3, "momentum": 0.5, "label_smoothing": 0.1},
        {"upload": "gradient"},
    ],
)
@pytest.mark.parametrize("sizes", [[12, 12, 12], [5, 12, 1, 8, 3]])
def test_each_client_trains_as_by_itself(form, sizes):
    local = LocalTraining(lr=0.1, batch_size=4, **form)
    assert_alike(*both_ways(convolutions(), local, sizes))


@pytest.mark.twin
def test_in_float64_nothing_but_the_last_digits_differs():
    local = LocalTraining(lr=0.1, batch_size=4, epochs=3, momentum=0.9)
    sizes = [5, 12, 1, 8, 3]
    for left, right in zip(
        *both_ways(convolutions().double(), local, sizes, inputs=INPUTS.double()), strict=True
    ):
        assert norm(subtract(left, right)) <= 1e-13 * norm(right)


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    batch_size=st.integers(1, 9),
    epochs=st.integers(1, 3),
    momentum=st.sampled_from([0.0, 0.8]),
    mixes=st.booleans(),
)
@settings(max_examples=40)
def test_any_sizes_of_clients_and_batches(sizes, batch_size, epochs, momentum, mixes):
    local = LocalTraining(lr=0.1, batch_size=batch_size, epochs=epochs, momentum=momentum)
    inputs = INPUTS.flatten(1)[:, :4]
    assert_alike(*both_ways(bilinear(3), local, sizes, mixes=mixes, inputs=inputs))


def test_batches_whose_examples_mix_are_not_filled_up():
    local = LocalTraining(lr=0.1, batch_size=4)
    model, sizes = batch_statistics(), [8, 7, 6, 3]
    assert_alike(*both_ways(model, local, sizes, mixes=True))
    filled, alone = both_ways(model, local, sizes)  # what must not be done
    apart = max(float(norm(subtract(*pair))) for pair in zip(filled, alone, strict=True))
    assert apart > MOST


def test_clients_that_were_sent_different_weights():
    local = LocalTraining(lr=0.1, batch_size=4)
    rows = [torch.arange(6), torch.arange(6, 12)]
    sent = [{n: v * scale for n, v in convolutions().state_dict().items()} for scale in (1.0, 0.5)]
    steps = [[of[batch] for batch in shuffled(6, local, generator(0, 0))] for of in rows]
    together = train_together(convolutions(), sent, INPUTS, LABELS, steps, local, mixes=False)
    alone = [
        train(convolutions(), at, INPUTS[of], LABELS[of], local, generator=generator(0, 0))[0]
        for at, of in zip(sent, rows, strict=True)
    ]
    assert_alike(together, alone)


def test_the_same_clients_give_the_same_bits():
    local = LocalTraining(lr=0.1, batch_size=4)
    first, again = (both_ways(convolutions(), local, [9, 5, 6])[0] for _ in range(2))
    assert all(same_params(*pair) for pair in zip(first, again, strict=True))


class Counting(nn.Module):
    """A head with a buffer that counts its calls."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls.add_(1)
        return self.head(inputs)


def test_a_buffer_that_moves_is_no_training_together():
    local = LocalTraining(lr=0.1, batch_size=4)
    with pytest.raises(OneByOne, match="calls moves while the model trains"):
        both_ways(Counting(), local, [4, 4], inputs=INPUTS.flatten(1)[:, :4])


class Loud(nn.Module):
    """Noise from Python's generator, which no tensor shows."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, inputs):
        import random

        return self.head(inputs.flatten(1)) * random.random()


class Branching(Loud):
    """A forward that looks at a value."""

    def forward(self, inputs):
        logits = self.head(inputs.flatten(1))
        return logits if logits.sum() > 0 else 2 * logits


class Half(Loud):
    """Weights of 16 bits."""

    def forward(self, inputs):
        return self.head(inputs.flatten(1).bfloat16()).float()


def normed(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, num_classes))


def dropping(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, num_classes))


def loud(input_shape, num_classes):
    return Loud()


def branching(input_shape, num_classes):
    return Branching()


def half(input_shape, num_classes):
    return Half().bfloat16()


class Centred(Loud):
    """Takes the mean from logits of a large batch."""

    def forward(self, inputs):
        logits = self.head(inputs.flatten(1))
        return logits - logits.mean(0) if len(inputs) > 8 else logits


def centred(input_shape, num_classes):
    return Centred()


HERE = "tests.clients.test_together"


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({}, ""),
        ({"model": f"{HERE}:normed"}, "1.running_mean moves while the model trains"),
        ({"model": f"{HERE}:dropping"}, "the model draws random numbers while it trains"),
        ({"model": f"{HERE}:loud"}, "the model draws random numbers while it trains"),
        ({"model": f"{HERE}:half"}, "head.weight is of torch.bfloat16"),
        ({"model": f"{HERE}:branching"}, "the model refuses vmap (RuntimeError: vmap: "),
        ({"model": f"{HERE}:centred"}, ""),
        ({"model": f"{HERE}:centred", "local": {"batch_size": 16}}, "vmap changes the gradient"),
        ({"defense": [{"name": "mixup"}]}, "the defense mixup works inside training"),
    ],
)
def test_what_stands_in_the_way_is_named(tables, reason):
    text = configs.to_json(small_config(**tables))
    hindrance = batching(site(text, operator({"partition-id": 0}, simulated=True))).hindrance
    assert hindrance.startswith(reason)
    assert bool(hindrance) == bool(reason)
