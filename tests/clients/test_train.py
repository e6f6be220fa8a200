import copy

import pytest
import torch
from torch.nn import functional

from clients.train import train
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from tests.builders import bilinear, plain_gradient, same_params

INPUTS = torch.randn(11, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(11) % 3


def model_of(scale=1.0):
    model = bilinear(3)
    for parameter in model.parameters():
        parameter.data *= scale
    return model


def obvious(model, local, stream):
    """The same training with torch's own SGD."""
    anchor = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser = torch.optim.SGD(model.parameters(), lr=local.lr, momentum=local.momentum)
    for _ in range(local.epochs):
        order = torch.randperm(len(LABELS), generator=stream)
        for start in range(0, len(order), local.batch_size):
            batch = order[start : start + local.batch_size]
            loss = functional.cross_entropy(
                model(INPUTS[batch]), LABELS[batch], label_smoothing=local.label_smoothing
            )
            for parameter, origin in zip(model.parameters(), anchor, strict=True):
                loss = loss + local.proximal_mu / 2 * (parameter - origin).square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.state_dict()


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"proximal_mu": 0.7},
        {"momentum": 0.9},
        {"label_smoothing": 0.2},
        {"proximal_mu": 0.7, "momentum": 0.5, "label_smoothing": 0.1},
    ],
)
def test_it_is_torchs_sgd(form):
    model = model_of()
    local = LocalTraining(lr=0.1, batch_size=4, epochs=3, **form)
    expected = obvious(copy.deepcopy(model), local, generator(0, "x"))
    sent = model.state_dict()
    state, used = train(model_of(9.0), sent, INPUTS, LABELS, local, generator=generator(0, "x"))
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value)
    assert torch.equal(torch.bincount(used), torch.full((11,), 3))


def test_momentum_starts_from_rest_in_every_round():
    local = LocalTraining(lr=0.1, batch_size=11, momentum=0.9)
    sent = {name: value.clone() for name, value in model_of().state_dict().items()}
    train_once = lambda m: train(m, sent, INPUTS, LABELS, local, generator=generator(0))[0]
    model = model_of()
    assert same_params(train_once(model), train_once(model))


def test_a_defense_may_draw_its_own_batches():
    seen = []

    def gradient(model, parameters, inputs, labels, local, stream):
        seen.append((inputs, labels, local))
        return [torch.zeros_like(value) for value in parameters.values()]

    local = LocalTraining(lr=0.1, batch_size=4, label_smoothing=0.1)
    own = [torch.tensor([3, 3]), torch.tensor([], dtype=torch.int64)]
    _, used = train(
        model_of(), model_of().state_dict(), INPUTS, LABELS, local, generator=generator(0),
        gradient=gradient, batches=lambda count, told, stream: own if count == 11 else [],
    )  # fmt: skip
    assert used.tolist() == [3, 3]
    assert torch.equal(seen[0][0], INPUTS[[3, 3]])
    assert len(seen[1][1]) == 0
    assert seen[0][2] is local


def test_a_smoothed_gradient_is_that_of_torchs_loss():
    model = model_of()
    local = LocalTraining(lr=0.1, batch_size=11, upload="gradient", label_smoothing=0.3)
    gradient, used = train(
        model, copy.deepcopy(model.state_dict()), INPUTS, LABELS, local, generator=generator(0)
    )
    p = model(INPUTS).softmax(dim=1).detach()
    target = 0.7 * torch.eye(3)[LABELS] + 0.1
    torch.testing.assert_close(gradient["2.bias"], (p - target).mean(dim=0))
    assert len(used) == 11


def test_a_gradient_upload_is_the_gradient_of_the_examples_it_names():
    model = model_of()
    local = LocalTraining(lr=0.1, batch_size=4, upload="gradient")
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    gradient, used = train(model, sent, INPUTS, LABELS, local, generator=generator(0, "x"))
    assert len(used) == len(set(used.tolist())) == 4
    assert same_params(gradient, plain_gradient(model, INPUTS[used], LABELS[used]))


def test_the_hook_replaces_the_batch_gradient():
    ones = lambda model, parameters, *_: [torch.ones_like(p) for p in parameters.values()]
    local = LocalTraining(lr=0.5, batch_size=11, epochs=2)
    sent = {name: value.clone() for name, value in model_of().state_dict().items()}
    state, _ = train(model_of(), sent, INPUTS, LABELS, local, generator=generator(0), gradient=ones)
    for name, value in state.items():
        torch.testing.assert_close(value, sent[name] - 1.0)


def test_buffers_travel_and_are_no_gradients():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3)
    )
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    local = LocalTraining(lr=0.1, batch_size=8, upload="gradient")
    state, _ = train(model, sent, INPUTS, LABELS, local, generator=generator(0))
    assert list(state) == list(sent)
    assert state["1.num_batches_tracked"] == 1
    assert not torch.equal(state["1.running_mean"], sent["1.running_mean"])
