"""Copies of models: equal to deep ones, sharing nothing, for plain modules and for all others."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fedsim import models
from fedsim.config import Model
from fedsim.core.form import Form
from fedsim.models import copying
from fedsim.models.copying import copied, keeps_nothing

SHAPE = (1, 28, 28)
IDS = Form((5,), 9, torch.int64, 9, per_token=True)


class Tied(nn.Module):
    """A weight under two names, and a buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.first
        self.register_buffer("scale", torch.ones(2), persistent=False)


class Counting(nn.Module):
    """Copies itself."""

    def __deepcopy__(self, memo):
        twin = Counting()
        twin.copies = 1
        return twin


class Stateful(nn.Module):
    """Restores itself."""

    def __setstate__(self, state):
        super().__setstate__(state)
        self.restored = True


def with_attribute(value):
    module = nn.Linear(2, 2)
    module.attribute = value
    return module


def with_shared_list():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].attribute = module[1].attribute = [1]
    return module


def with_views():
    module, memory = nn.Module(), torch.arange(4.0)
    module.register_buffer("left", memory[:2])
    module.register_buffer("right", memory[1:])
    return module


def with_a_gradient():
    module = nn.Linear(2, 2)
    module(torch.ones(1, 2)).sum().backward()
    module.register_buffer("grown", module.weight.detach().clone().requires_grad_())
    return module


PLAIN = {
    **{name: partial(models.build, Model(name=name), Form(SHAPE, 10), seed=0)
       for name in ("cnn", "mlp", "lenet5", "lenet")},
    **{f"gpt {it}": partial(models.build, Model(name="gpt", positions=it), IDS, seed=0)
       for it in ("learned", "rotary")},
    "batch norm": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)),
    "recurrent": lambda: nn.Sequential(nn.Embedding(3, 4)),
    "tied": Tied,
    "attributes": lambda: with_attribute({"a": 1, "b": None}),
    "list": lambda: with_attribute([1, "a"]),
}  # fmt: skip
OTHERS = {
    "own copy": lambda: nn.Sequential(Counting()),
    "own state": lambda: nn.Sequential(Stateful()),
    "shared list": with_shared_list,
    "views": with_views,
    "gradient": with_a_gradient,
    "tensor": lambda: with_attribute(torch.ones(2)),
    "nested": lambda: with_attribute([[1]]),
    "object": lambda: with_attribute(partial(print, [1])),
}


def assert_same(left, right, pairs):
    """Both are built alike, with the same values, and what is one there is one here."""
    assert type(left) is type(right)
    if not isinstance(left, Tensor | nn.Module | dict | list | set | partial):
        assert left == right
        return
    assert pairs.setdefault(id(left), id(right)) == id(right)
    if isinstance(left, Tensor):
        assert torch.equal(left, right)
        assert (left.requires_grad, left.stride()) == (right.requires_grad, right.stride())
        assert (left.grad is None) == (right.grad is None)
    elif isinstance(left, nn.Module):
        assert_same(vars(left), vars(right), pairs)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key], pairs)
    elif isinstance(left, partial):
        assert (left.func, left.args, left.keywords) == (right.func, right.args, right.keywords)
    else:
        assert left == right


@pytest.mark.twin
@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_a_copy_is_the_deep_one(name, monkeypatch):
    model = {**PLAIN, **OTHERS}[name]()
    deepcopy, calls = copy.deepcopy, []
    deep = deepcopy(model)

    def counted(*arguments):
        calls.append(arguments)
        return deepcopy(*arguments)

    monkeypatch.setattr(copying.copy, "deepcopy", counted)
    twin = copied(model)
    assert_same(deep, twin, {})
    assert bool(calls) == (name in OTHERS)
    memories = [{t.data_ptr() for t in it.state_dict().values()} for it in (model, twin)]
    assert not memories[0] & memories[1]
    assert all(
        left is not right for left, right in zip(model.modules(), twin.modules(), strict=True)
    )
    if name in ("cnn", "mlp"):
        inputs = torch.rand(2, *SHAPE)
        assert torch.equal(model(inputs), twin(inputs))


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_a_model_of_layers_that_keep_nothing_can_be_reused(name):
    assert keeps_nothing(models.build(Model(name=name), Form(SHAPE, 10), seed=0))


def test_a_model_that_may_keep_something_is_not_reused():
    class Own(nn.Linear):
        pass

    counting = nn.Linear(2, 2)
    counting.forward = lambda inputs: inputs
    hooked, hooked_backward = nn.Linear(2, 2), nn.Linear(2, 2)
    hooked.register_forward_hook(lambda *_: None)
    hooked_backward.register_full_backward_hook(lambda *_: None)
    assert keeps_nothing(nn.Linear(2, 2))
    for layer in (Own(2, 2), counting, hooked, hooked_backward, nn.Dropout(), nn.BatchNorm1d(2)):
        assert not keeps_nothing(nn.Sequential(nn.Linear(2, 2), layer))
