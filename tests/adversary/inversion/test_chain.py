"""Layers whose gradients are not in the update, each by itself, are refused in one sentence."""

import pytest
import torch
from torch import nn

from adversary.inversion.chain import NotWalkableError, chain, check_trained, first_linear
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
