import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import weight_norm

from adversary.members.candidates import (
    QUERIES,
    asking_of_auxiliary,
    gradients,
    losses,
    slopes,
    to_mean_gradient,
    trained_names,
    uphill,
)
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, LocalTraining
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client
from tests.builders import work_at

SENT = cases.MODEL.state_dict()
WIDE = copy.deepcopy(cases.MODEL).double()
RECORDS = cases.KNOWN.candidates


def test_every_gradient_by_itself():
    found = list(gradients(work_at(cases.KNOWN, SENT)))
    flat = torch.stack([torch.cat([g.flatten() for g in one.values()]) for one in found]).double()
    expected = cases.own_gradients(cases.MODEL, RECORDS.inputs, RECORDS.labels)
    torch.testing.assert_close(flat, expected)


def test_a_slope_is_what_a_small_step_changes():
    stream, exact = generator(0, "direction"), Auxiliary(WIDE, 3, candidates=RECORDS)
    sent = WIDE.state_dict()
    direction = {n: torch.randn(v.shape, generator=stream).double() for n, v in SENT.items()}
    ahead, back = (
        losses(exact, {n: sent[n] + sign * 1e-7 * direction[n] for n in sent}, smoothing=0.1)
        for sign in (1, -1)
    )
    found = slopes(work_at(exact, sent, LocalTraining(0.1, 1, label_smoothing=0.1)), direction)
    torch.testing.assert_close(found, (ahead - back) / 2e-7, rtol=1e-5, atol=1e-5)


class _Straight(torch.autograd.Function):
    """Rounds, with the gradient of no rounding, and no rule for forward differentiation."""

    @staticmethod
    def forward(ctx, x):
        return x.mul(8).round().div(8)

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0]


class _Rounded(nn.Module):
    def forward(self, x):
        return _Straight.apply(x)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3)],
        lambda: [nn.Linear(6, 5), _Rounded(), nn.Linear(5, 3)],
    ],
    ids=["weight norm", "a function without a forward rule"],
)
def test_slopes_of_what_is_not_differentiated_forwards_are_those_of_the_gradients(layers):
    stream = generator(0, "not forwards")
    model = nn.Sequential(*layers())
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=stream))
    records = Candidates(torch.randn(4, 6, generator=stream), torch.tensor([0, 1, 2, 0]))
    direction = {n: torch.randn(v.shape, generator=stream) for n, v in model.named_parameters()}
    work = work_at(Auxiliary(model, 3, candidates=records), model.state_dict())
    expected = []
    for x, y in zip(records.inputs.split(1), records.labels.split(1), strict=True):
        parts = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        pairs = zip(parts, direction.values(), strict=True)
        expected.append(sum(float((part * v).sum()) for part, v in pairs))
    right = torch.tensor(expected).double()
    torch.testing.assert_close(slopes(work, direction), right, rtol=1e-4, atol=1e-5)


def test_losses_are_those_of_the_state_that_is_asked_about():
    state = {name: value + 0.1 for name, value in SENT.items()}
    moved = torch.func.functional_call(cases.MODEL, state, (RECORDS.inputs,))
    expected = cross_entropy(moved, RECORDS.labels, reduction="none").detach().double()
    torch.testing.assert_close(losses(cases.KNOWN, state, smoothing=0.0), expected)


@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(0.05, 16),
        LocalTraining(0.05, 16, momentum=0.9),
        LocalTraining(0.05, 16, proximal_mu=0.5),
        LocalTraining(0.05, 16, upload="gradient"),
    ],
)
def test_one_step_has_the_length_of_its_gradient(local):
    inputs, labels = cases.RECORDS[:16], cases.LABELS[:16]
    seen = client(cases.MODEL, inputs, labels, local).latest
    length = uphill(seen, cases.KNOWN)[1] * to_mean_gradient(seen)
    expected = cases.own_gradients(cases.MODEL, inputs, labels).mean(dim=0).norm()
    assert length == pytest.approx(float(expected), rel=1e-4)


def test_small_steps_have_the_length_of_their_mean_gradient():
    inputs, labels = cases.RECORDS[:16], cases.LABELS[:16]
    seen = client(cases.MODEL, inputs, labels, LocalTraining(1e-5, 16, epochs=4)).latest
    length = uphill(seen, cases.KNOWN)[1] * to_mean_gradient(seen)
    expected = cases.own_gradients(cases.MODEL, inputs, labels).mean(dim=0).norm()
    assert length == pytest.approx(float(expected), rel=0.01)


def test_a_sum_over_clients_is_brought_back_to_one():
    seen = client(cases.MODEL, cases.RECORDS[:8], cases.LABELS[:8], cases.GRADIENT).latest
    summed = {name: 3 * value for name, value in seen.update.delta.items()}
    three = replace(seen, update=replace(seen.update, delta=summed, num_examples=24, num_clients=3))
    one, other = (uphill(o, cases.KNOWN)[1] * to_mean_gradient(o) for o in (seen, three))
    assert one == pytest.approx(other)


def test_auxiliary_records_are_asked_about_once_and_not_all():
    inputs = torch.arange(QUERIES + 50.0).unsqueeze(1)
    many = Auxiliary(cases.MODEL, 3, inputs=inputs, labels=torch.zeros(QUERIES + 50).long())
    work = work_at(many, SENT)
    asking = work.derived(asking_of_auxiliary)
    assert asking.auxiliary.candidates.inputs.unique().shape == (QUERIES,)
    assert work.derived(asking_of_auxiliary) is asking


def test_a_frozen_layer_has_no_gradient():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 3))
    model[0].requires_grad_(False)
    frozen = Auxiliary(model, 3, candidates=RECORDS)
    assert trained_names(frozen) == ["1.weight", "1.bias"]
    assert list(next(gradients(work_at(frozen, model.state_dict())))) == trained_names(frozen)
