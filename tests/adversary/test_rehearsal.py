from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.rehearsal import rehearse
from clients.train import train
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import client
from tests.builders import bilinear, work_at

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
