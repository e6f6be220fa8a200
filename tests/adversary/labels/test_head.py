"""The head is found by structure, read without the rest, and run without a trace."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.labels.head import find_head, forward, noise_forward, read_head
from adversary.workspace import workspace
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update
from tests.adversary.label_cases import client
from tests.builders import plain_gradient, work_at

CLASSES = 3


def sequence(*body: nn.Module, **last: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*body)
    for name, module in last.items():
        model.add_module(name, module)
    return model


class Other(nn.Module):
    """A head that is defined first, and another layer of its shape on the way to it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, CLASSES)
        self.body = nn.Linear(4, 6)
        self.second = nn.Linear(6, CLASSES)

    def forward(self, x):
        h = self.body(x).relu()
        return self.first(h * self.second(h).mean(dim=1, keepdim=True).sigmoid())


class Late(Other):
    """An auxiliary classifier is applied last, and its logits are thrown away."""

    def forward(self, x):
        h = self.body(x).relu()
        return self.first(h) + 0 * self.second(h).mean()


class Raw(nn.Module):
    """No layers: functional calls on parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.a = nn.Parameter(torch.rand(CLASSES, 6)), nn.Parameter(torch.rand(6, 4))
        self.offset = nn.Parameter(torch.rand(CLASSES))

    def forward(self, x):
        return functional.linear(torch.tanh(x @ self.a.T), bias=self.offset, weight=self.v)


class Computed(Raw):
    """A head whose weight is no parameter."""

    def forward(self, x):
        return functional.linear(torch.tanh(x @ self.a.T), 2 * self.v, self.offset)


class Layer(nn.Linear):
    """A subclass of the linear layer."""


class Convolved(nn.Module):
    """Ends in a 1×1 convolution and an average."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, CLASSES, 1)

    def forward(self, x):
        return self.last(self.body(x).relu()).mean(dim=(2, 3))


class Product(Raw):
    """Ends in a matrix product that is no linear layer."""

    def forward(self, x):
        return torch.tanh(x @ self.a.T) @ self.v.T + self.offset


def body() -> list[nn.Module]:
    return [nn.Linear(4, 6), nn.ReLU()]


FOUND = {
    "any name": (sequence(*body(), out=nn.Linear(6, CLASSES)), "out.weight", "out.bias"),
    "defined first": (Other(), "first.weight", "first.bias"),
    "another applied last": (Late(), "first.weight", "first.bias"),
    "raw parameters": (Raw(), "v", "offset"),
    "a subclass": (sequence(*body(), last=Layer(6, CLASSES)), "last.weight", "last.bias"),
    "log-softmax": (
        sequence(*body(), z=nn.Linear(6, CLASSES), p=nn.LogSoftmax(dim=1)), "z.weight", "z.bias",
    ),
    "no bias": (sequence(*body(), z=nn.Linear(6, CLASSES, bias=False)), "z.weight", None),
    "dropout": (
        sequence(*body(), drop=nn.Dropout(0.5), z=nn.Linear(6, CLASSES)), "z.weight", "z.bias",
    ),
    "batch norm": (
        sequence(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), z=nn.Linear(6, CLASSES)),
        "z.weight", "z.bias",
    ),
    "double precision": (
        sequence(*body(), z=nn.Linear(6, CLASSES)).double(), "z.weight", "z.bias",
    ),
    "nothing but a head": (sequence(z=nn.Linear(4, CLASSES)), "z.weight", "z.bias"),
    "as many features as classes": (
        sequence(nn.Linear(4, CLASSES), nn.ReLU(), z=nn.Linear(CLASSES, CLASSES)),
        "z.weight", "z.bias",
    ),
}  # fmt: skip
LINEAR = "model: must end in a linear layer of 3 outputs that are its logits, got none"
REFUSED = {
    "softmax": (sequence(*body(), nn.Linear(6, CLASSES), nn.Softmax(dim=1)), (4,), LINEAR),
    "convolution": (Convolved(), (1, 6, 6), LINEAR),
    "no linear layer": (Product(), (4,), LINEAR),
    "cut logits": (sequence(*body(), nn.Linear(6, CLASSES), nn.Hardtanh(-9, 0)), (4,), LINEAR),
    "other classes": (sequence(*body(), nn.Linear(6, CLASSES + 1)), (4,), LINEAR),
    "computed weight": (
        Computed(), (4,),
        "model: the last layer's weight must be a parameter, got a computed one",
    ),
    "no shape": (
        sequence(*body(), nn.Linear(6, CLASSES)), None,
        "auxiliary.input_shape: must be given where there are no inputs, got none",
    ),
}  # fmt: skip


def inputs_of(model: nn.Module, count: int = 5) -> torch.Tensor:
    inputs = torch.rand(count, 4, generator=generator(0, "head"))
    return inputs.to(next(model.parameters()).dtype)


@pytest.mark.parametrize("case", FOUND)
def test_the_head_is_what_gives_the_logits(case):
    model, weight, bias = FOUND[case]
    auxiliary = Auxiliary(model, CLASSES, input_shape=(4,))
    head = find_head(work_at(auxiliary, {}))
    assert (head.weight, head.bias) == (weight, bias)
    # Its gradient is read, and its inputs and outputs are those of the model.
    view = client(model, inputs_of(model), torch.tensor([0, 0, 1, 2, 1]), gradient_of(5))
    there = forward(workspace(view, auxiliary), view.latest.sent, inputs_of(model))
    read = read_head(view.latest, workspace(view, auxiliary))
    labels = torch.eye(CLASSES)[[0, 0, 1, 2, 1]].double()
    if case != "dropout":  # whose masks differ
        expected = (there.probabilities - labels).T @ there.features.double()
        torch.testing.assert_close(read.weight, expected, rtol=1e-4, atol=1e-5)
    assert (read.bias is None) == (bias is None)


def gradient_of(size: int) -> LocalTraining:
    return LocalTraining(0.1, size, upload="gradient")


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_without_a_readable_head_is_one_sentence(case):
    model, shape, sentence = REFUSED[case]
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        find_head(work_at(Auxiliary(model, CLASSES, input_shape=shape), {}))
    assert str(refused.value) == sentence


class Counting(Mapping):
    """Parameters that count what is read of them."""

    def __init__(self, values) -> None:
        self.values_, self.read = values, []

    def __getitem__(self, name):
        self.read.append(name)
        return self.values_[name]

    def __iter__(self):
        return iter(self.values_)

    def __len__(self):
        return len(self.values_)


def test_nothing_but_the_head_is_read_and_each_tensor_once():
    model = sequence(*body(), nn.Linear(6, 6), z=nn.Linear(6, CLASSES))
    update = Counting(plain_gradient(model, inputs_of(model), torch.tensor([0, 0, 1, 2, 1])))
    sent = Counting(dict(model.state_dict()))
    observation = Observation(sent, Update(1, "0", update, 5), gradient_of(5))
    read_head(observation, work_at(Auxiliary(model, CLASSES, input_shape=(4,)), {}))
    assert update.read == ["z.weight", "z.bias"]
    assert sent.read == []


@pytest.mark.parametrize("form", [{}, {"momentum": 0.9}, {"proximal_mu": 3.0}])
def test_a_cohort_of_equal_clients_is_read_as_often_as_there_are(form):
    model, labels = sequence(*body(), z=nn.Linear(6, CLASSES)), torch.tensor([0, 0, 1, 2, 1])
    local = LocalTraining(0.1, 2, epochs=3, **form)
    auxiliary = Auxiliary(model, CLASSES, inputs=inputs_of(model))
    one = client(model, inputs_of(model), labels, local).latest
    delta = {name: 4 * value for name, value in one.update.delta.items()}
    four = Observation(one.sent, Update(1, "cohort", delta, 20, num_clients=4), local)
    work = work_at(auxiliary, one.sent)
    alone, together = (read_head(observation, work) for observation in (one, four))
    assert (together.total, together.steps) == (4 * alone.total, 4 * alone.steps)
    torch.testing.assert_close(together.weight, 4 * alone.weight)
    torch.testing.assert_close(together.bias, 4 * alone.bias)  # type: ignore[operator]


def test_the_forward_pass_is_in_training_mode_repeatable_and_leaves_no_trace():
    model = sequence(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), z=nn.Linear(6, CLASSES)
    ).eval()
    before = copy.deepcopy(model.state_dict())
    sent = {name: value + 1 for name, value in before.items()}
    kept = copy.deepcopy(sent)
    work = work_at(Auxiliary(model, CLASSES, input_shape=(4,)), sent)
    coins = torch.get_rng_state()
    first, second = (forward(work, sent, inputs_of(model)) for _ in range(2))
    assert torch.equal(first.logits, second.logits)
    assert bool((first.features == 0).any())  # dropped
    noise = noise_forward(work)
    assert noise.logits.shape == (500, CLASSES)
    assert torch.equal(torch.get_rng_state(), coins)
    for state, was in ((model.state_dict(), before), (sent, kept)):
        assert all(torch.equal(state[name], was[name]) for name in was)
    assert not model.training
    assert not any(isinstance(p.grad, torch.Tensor) for p in model.parameters())


@pytest.mark.parametrize(("count", "size"), [(1, 4), (5, 4), (9, 4), (8, 4)])
def test_no_batch_of_a_model_with_batch_norm_is_of_one_example(count, size):
    model = sequence(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), z=nn.Linear(6, CLASSES))
    work = work_at(Auxiliary(model, CLASSES, input_shape=(4,)), {})
    outputs = forward(work, model.state_dict(), inputs_of(model, count), size)
    assert outputs.logits.shape == (count, CLASSES)
    assert len(outputs.features) == count
    assert bool(torch.isfinite(outputs.logits).all())


def test_batches_change_nothing_where_examples_stand_alone():
    model = sequence(*body(), z=nn.Linear(6, CLASSES), p=nn.LogSoftmax(dim=1))
    work = work_at(Auxiliary(model, CLASSES, input_shape=(4,)), {})
    inputs = inputs_of(model, 11)
    parts, whole = (forward(work, model.state_dict(), inputs, size) for size in (4, 100))
    torch.testing.assert_close(parts.logits, whole.logits)
    with torch.no_grad():
        torch.testing.assert_close(whole.probabilities.log().float(), model(inputs))
        torch.testing.assert_close(whole.features, model[:2](inputs))
    torch.testing.assert_close(whole.sums, whole.features.double().sum(1))
