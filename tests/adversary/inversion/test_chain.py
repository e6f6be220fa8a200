"""Layers whose gradients are not in the update, each by itself, are refused in one sentence."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.inversion.chain import NotWalkableError, chain, check_trained, first_linear, follows
from fedsim.core.errors import NotApplicable
from fedsim.models.travels import travelling


def layers(kind):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4))
    if kind == "frozen":
        model[0].requires_grad_(requires_grad=False)
    if kind == "tied":
        model[2].weight = model[0].weight
    return travelling(model)


@pytest.mark.worked
@pytest.mark.parametrize(
    ("kind", "sentence"), [("frozen", "got a frozen layer"), ("tied", "got a tied one")]
)
def test_frozen_and_tied_layers_are_not_walked_back_through(kind, sentence):
    model = layers(kind)
    with pytest.raises(NotWalkableError, match=f"0 = Linear: must .* {sentence}"):
        check_trained(model, chain(model, (4,)))
    with pytest.raises(NotApplicable, match=f"0: must .* {sentence}"):
        first_linear(model, (4,))


@pytest.mark.worked
def test_other_layers_are():
    model = layers("plain")
    check_trained(model, chain(model, (4,)))
    assert first_linear(model, (4,)) == "0"
    assert torch.equal(model[0].weight, model.state_dict()["0.weight"])


class Calling(nn.Module):
    """A first layer, and a function of its output."""

    def __init__(self, function, *, signs=(1,)):
        super().__init__()
        self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.function, self.signs = function, signs

    def forward(self, x):
        return self.head(sum(self.function(self.first(sign * x)) for sign in self.signs))


@pytest.mark.worked
@pytest.mark.parametrize(
    ("function", "after"),
    [
        (torch.relu, "ReLU"),
        (functional.relu, "ReLU"),
        (torch.Tensor.relu, "ReLU"),
        (lambda z: functional.relu(z, inplace=True), "ReLU"),
        (nn.ReLU(inplace=True), "ReLU"),
        (torch.tanh, "Linear"),
        (lambda z: torch.relu(z - 1), "Linear"),
    ],
)
def test_a_relu_is_seen_wherever_it_is_called(function, after):
    assert follows(Calling(function), "first", (4,)) == after


@pytest.mark.worked
def test_a_layer_that_is_called_twice_is_no_first_layer():
    with pytest.raises(NotApplicable, match="first: must be called once, got 2 calls"):
        first_linear(Calling(torch.relu, signs=(1, -1)), (4,))
