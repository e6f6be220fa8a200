from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary import local_training
from adversary.rehearsal import rehearse, rehearse_all
from clients.train import train
from defenses import dp_sgd
from fedsim.core.params import norm, subtract
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import client
from tests.builders import bilinear, same_params, work_at

INPUTS = torch.rand(3, 4, generator=generator(0, "rehearsal"))
ONE_EACH = torch.arange(3)
COUNTS = torch.tensor([2, 0, 3])


def rehearsed(local, counts=COUNTS, *, auxiliary=None, seed=0):
    """Return what a rehearsal makes of one known example a class."""
    model = bilinear(3)
    latest = client(model, INPUTS, ONE_EACH, local).latest
    auxiliary = auxiliary or Auxiliary(model, 3, inputs=INPUTS, labels=ONE_EACH)
    return latest, rehearse(latest, work_at(auxiliary, latest.sent), counts, generator(seed))


@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(0.1, 5, upload="gradient"),
        LocalTraining(0.1, 5, upload="gradient", label_smoothing=0.2),
        LocalTraining(0.1, 5, epochs=3, momentum=0.9),
        LocalTraining(0.1, 5, epochs=3, proximal_mu=0.5, label_smoothing=0.1),
    ],
)
def test_it_is_what_a_client_with_these_examples_uploads(local):
    sent, told = rehearsed(local)
    rows = ONE_EACH.repeat_interleave(COUNTS)  # one batch: their order does not matter
    state, _ = train(
        bilinear(3), sent.sent, INPUTS[rows], ONE_EACH[rows], local, generator=generator(0)
    )
    for name, value in told.update.delta.items():
        expected = state[name] if local.upload == "gradient" else state[name] - sent.sent[name]
        torch.testing.assert_close(value, expected)
    assert list(told.update.delta) == list(sent.update.delta)
    assert (told.update.num_examples, told.update.num_clients) == (5, 1)


def test_the_order_of_batches_comes_from_the_generator():
    local = LocalTraining(0.5, 1)
    first, again, other = (rehearsed(local, seed=seed)[1].update.delta for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_others_stand_in_for_a_class_without_an_example():
    local = LocalTraining(0.1, 1, upload="gradient")
    poor = Auxiliary(bilinear(3), 3, inputs=INPUTS[:1], labels=ONE_EACH[:1])
    _, told = rehearsed(local, torch.tensor([0, 0, 1]), auxiliary=poor)
    all_labelled = Auxiliary(bilinear(3), 3, inputs=INPUTS[:1], labels=torch.tensor([2]))
    _, expected = rehearsed(local, torch.tensor([0, 0, 1]), auxiliary=all_labelled)
    for name, value in told.update.delta.items():
        torch.testing.assert_close(value, expected.update.delta[name])


def test_it_leaves_the_model_and_the_global_stream_alone():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    latest = client(model, INPUTS, ONE_EACH, LocalTraining(0.1, 3)).latest
    elsewhere = replace(latest, sent={k: v + 1 for k, v in latest.sent.items()})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    work = work_at(Auxiliary(model, 3, inputs=INPUTS, labels=ONE_EACH), elsewhere.sent)
    rehearse(elsewhere, work, COUNTS, generator(0))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


FORMS = [
    {},
    {"epochs": 3, "momentum": 0.9},
    {"epochs": 2, "proximal_mu": 0.5, "label_smoothing": 0.1},
    {"upload": "gradient"},
]
MANY = [torch.tensor(counts) for counts in ([2, 0, 3], [1, 1, 1], [0, 4, 0], [5, 5, 1], [0, 0, 1])]


def rehearsed_by(batch, local, *, model=None, shared=False, defense=None):
    """Return what an adversary rehearses that trains so many clients together, and its count."""
    model, stream = model or bilinear(3), generator(0, "shared")
    auxiliary = Auxiliary(
        model, 3, inputs=INPUTS, labels=ONE_EACH, defense=defense, rehearsals=Rehearsals(batch)
    )
    latest = client(bilinear(3), INPUTS, ONE_EACH, local).latest
    latest = replace(latest, sent=dict(model.state_dict()))
    streams = (stream if shared else generator(0, place) for place in range(len(MANY)))
    clients = zip(MANY, streams, strict=True)
    work = work_at(auxiliary, latest.sent, local)
    uploads = list(rehearse_all(latest, work, clients, hooked=defense is not None))
    return uploads, auxiliary.rehearsals.counted(), stream.get_state()


@pytest.mark.twin
@pytest.mark.parametrize("shared", [False, True], ids=["streams", "one stream"])
@pytest.mark.parametrize("form", FORMS)
def test_clients_rehearsed_together_are_those_rehearsed_one_by_one(form, shared):
    local = LocalTraining(0.1, 2, **form)
    alone, _, state = rehearsed_by(1, local, shared=shared)
    for batch in (2, 3, 32):
        together, counts, after = rehearsed_by(batch, local, shared=shared)
        assert counts == {}
        assert torch.equal(after, state)  # the same draws
        for left, right in zip(together, alone, strict=True):
            assert list(left.update.delta) == list(right.update.delta)
            assert left.update.num_examples == right.update.num_examples
            apart = norm(subtract(left.update.delta, right.update.delta))
            assert apart <= 1e-5 * norm(right.update.delta)


def dropping():
    with global_stream(0, "dropping"):
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


class Twisted(nn.Linear):
    """A layer that looks at the values of its input."""

    def forward(self, input):
        return super().forward(input) * (1.0 if float(input.detach().sum()) > -1e9 else 2.0)


@pytest.mark.parametrize(
    ("model", "defense", "reason"),
    [
        (dropping(), None, "the model draws random numbers while it trains"),
        (bilinear(3), dp_sgd(noise=1.0, clip=1.0), "the defense works inside training"),
        (Twisted(4, 3), None, "the model refuses vmap"),
    ],
)
def test_what_cannot_be_rehearsed_together_has_the_bits_of_one_by_one(model, defense, reason):
    local = LocalTraining(0.1, 2)
    alone, counts, _ = rehearsed_by(1, local, model=model, defense=defense)
    together, counted, _ = rehearsed_by(4, local, model=model, defense=defense)
    assert counts == {}
    assert sum(counted.values()) == len(MANY)
    assert all(text.startswith(reason) for text in counted)
    for left, right in zip(together, alone, strict=True):
        assert same_params(left.update.delta, right.update.delta)


def test_models_that_fill_the_memory_are_rehearsed_one_by_one(monkeypatch):
    monkeypatch.setattr(local_training, "WEIGHTS", 20)
    _, counts, _ = rehearsed_by(4, LocalTraining(0.1, 2))
    assert list(counts.values()) == [len(MANY)]
    monkeypatch.setattr(local_training, "WEIGHTS", 2**24)
    monkeypatch.setattr(local_training, "NUMBERS", 20)  # two clients with 2 records of 4 inputs
    assert rehearsed_by(4, LocalTraining(0.1, 2))[1] == {}


def test_a_gradient_that_fails_together_is_taken_one_by_one(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(local_training, "train_together", fail)
    local = LocalTraining(0.1, 2)
    uploads, counts, _ = rehearsed_by(2, local)
    assert sum(counts.values()) == 4  # the fifth has nobody beside it
    for left, right in zip(uploads, rehearsed_by(1, local)[0], strict=True):
        assert same_params(left.update.delta, right.update.delta)
