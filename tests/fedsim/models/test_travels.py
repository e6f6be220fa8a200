"""What of a model travels: no frozen parameter, and each parameter once."""

import copy
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from clients.train import train
from fedsim import models
from fedsim.core.errors import ConfigError
from fedsim.core.examples import example_gradients
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from fedsim.models.copying import copied
from fedsim.models.offline import CONSTANTS, SWITCH, offline
from fedsim.models.travels import load_base, travelling

LOCAL = LocalTraining(lr=0.1, batch_size=2, epochs=2, momentum=0.5)


class TwoNames(nn.Module):
    """Three layers of one shape; the first and the last share their weight if it is tied."""

    def __init__(self, *, tied: bool = True, frozen: str = "") -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(3, 3) for _ in range(3))
        if tied:
            self.last.weight = self.first.weight
        for name, value in self.named_parameters():
            value.requires_grad_(not (frozen and name.startswith(frozen)))

    def forward(self, x):
        return self.last(self.middle(self.first(x).tanh()).tanh())


def examples(count=6):
    stream = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, generator=stream), torch.arange(count) % 3


@pytest.mark.worked
def test_the_state_holds_no_frozen_parameter_and_each_parameter_once():
    model = travelling(TwoNames(frozen="middle"))
    assert list(model.state_dict()) == ["first.weight", "first.bias", "last.bias"]
    assert list(models.base_of(model)) == ["middle.weight", "middle.bias"]
    assert list(models.trainable(model)) == list(model.state_dict())


@pytest.mark.worked
def test_a_model_of_which_all_travels_is_left_as_it_is():
    model = TwoNames(tied=False)
    assert travelling(model) is model
    assert not model._state_dict_hooks
    assert not model._load_state_dict_pre_hooks
    assert models.digest_of_base(model) == ""


@pytest.mark.worked
@pytest.mark.parametrize("copy_of", [copied, copy.deepcopy])
def test_what_is_loaded_reaches_every_name_and_leaves_the_base(copy_of):
    model = travelling(TwoNames(frozen="middle"))
    twin = copy_of(model).requires_grad_(requires_grad=False)
    state = {name: torch.full_like(value, 2.0) for name, value in model.state_dict().items()}
    twin.load_state_dict(state)
    assert twin.first.weight is twin.last.weight
    assert torch.equal(twin.last.weight, state["first.weight"])
    assert torch.equal(twin.middle.weight, model.middle.weight)
    assert twin.middle.weight is not model.middle.weight
    assert list(twin.state_dict()) == list(state)
    with pytest.raises(RuntimeError, match=r"Missing key.*last\.bias"):
        twin.load_state_dict({k: v for k, v in state.items() if k != "last.bias"})


@pytest.mark.worked
def test_a_state_of_all_names_is_loaded_too():
    model, other = travelling(TwoNames(frozen="middle")), TwoNames(frozen="middle")
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.middle.weight, other.middle.weight)
    assert torch.equal(model.last.weight, other.first.weight)


@pytest.mark.worked
def test_the_hash_of_the_base_tells_values_and_names_apart():
    model = travelling(TwoNames(frozen="middle"))
    digest = models.digest_of_base(model)
    assert digest == models.digest_of_base(copy.deepcopy(model))
    model.first.bias.data += 1
    assert models.digest_of_base(model) == digest
    model.middle.bias.data[0] += 1
    assert models.digest_of_base(model) != digest


@pytest.mark.twin
@given(tied=st.booleans(), frozen=st.sampled_from(["", "middle", "first"]))
def test_training_and_gradients_are_those_of_the_bare_module(tied, frozen):
    torch.manual_seed(1)
    bare = TwoNames(tied=tied, frozen=frozen)
    model, (inputs, labels) = travelling(copy.deepcopy(bare)), examples()
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    moved, _ = train(copied(model), sent, inputs, labels, LOCAL, generator=generator(0, "order"))
    plain, _ = train(
        copy.deepcopy(bare),
        {n: v.clone() for n, v in bare.state_dict().items()},
        *(inputs, labels, LOCAL),
        generator=generator(0, "order"),
    )
    assert moved.keys() == sent.keys()
    assert all(torch.equal(value, plain[name]) for name, value in moved.items())
    trained = {n: v for n, v in model.named_parameters() if v.requires_grad}
    each = example_gradients(model, trained, inputs, labels)
    for place in range(len(inputs)):
        loss = functional.cross_entropy(bare(inputs[place, None]), labels[place, None])
        names = [name for name, value in bare.named_parameters() if value.requires_grad]
        slopes = torch.autograd.grad(loss, [bare.get_parameter(name) for name in names])
        for name, slope in zip(names, slopes, strict=True):
            assert torch.allclose(each[name][place], slope, atol=1e-6)


@pytest.mark.worked
def test_frozen_parameters_come_from_a_file_that_holds_them_all(tmp_path):
    model = travelling(TwoNames(frozen="middle"))
    path, base = tmp_path / "base.safetensors", models.base_of(model)
    save_file({name: value + 1 for name, value in base.items()}, path)
    expected = {name: value + 1 for name, value in base.items()}
    load_base(model, path)
    assert all(torch.equal(models.base_of(model)[name], expected[name]) for name in expected)
    save_file({"middle.weight": expected["middle.weight"]}, path)
    with pytest.raises(ConfigError, match=r"model\.base: must hold .* got missing middle\.bias"):
        load_base(model, path)
    path.write_bytes(b"none")
    for odd in (path, tmp_path / "absent.safetensors"):
        with pytest.raises(ConfigError, match=r"model\.base: must be a safetensors file, got"):
            load_base(model, odd)


def fetched():
    raise OSError("We couldn't connect to 'https://huggingface.co' to load the files")


@pytest.mark.worked
def test_nothing_is_fetched_while_a_model_is_built(monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    hub = SimpleNamespace(HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, CONSTANTS, hub)
    with offline("mine:gpt"):
        assert (os.environ[SWITCH], hub.HF_HUB_OFFLINE) == ("1", True)
    assert (SWITCH in os.environ, hub.HF_HUB_OFFLINE) == (False, False)
    at_hand = "'mine:gpt' must be built from files that are at hand"
    with pytest.raises(ConfigError, match=at_hand), offline("mine:gpt"):
        fetched()
    with pytest.raises(OSError, match="full"), offline("mine:gpt"):
        raise OSError("the disk is full")
    assert (SWITCH in os.environ, hub.HF_HUB_OFFLINE) == (False, False)
