import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fedsim import models
from fedsim.config import Model
from fedsim.core.form import Form
from fedsim.core.rng import global_stream
from fedsim.models.chain import chain_of
from fedsim.models.guard import guarded

pytestmark = pytest.mark.twin

CLIENTS, BATCH = 3, 4
CONV = {
    "plain": lambda: (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
    "no relu": lambda: (nn.Conv2d(2, 4, 3, bias=False), nn.MaxPool2d(2), nn.Flatten()),
    "other pooling": lambda: (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten()),
    "another function": lambda: (nn.Conv2d(2, 4, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten()),
    "in place": lambda: (nn.ReLU(inplace=True), nn.Conv2d(2, 4, 3), nn.Flatten(), nn.ReLU()),
    "stride": lambda: (nn.Conv2d(2, 4, 3, 2, "valid", 1, 2), nn.Sigmoid(), nn.Flatten()),
    "means": lambda: (nn.Conv2d(2, 4, 3, padding="same"), nn.AvgPool2d(2), nn.Flatten()),
    "mean": lambda: (nn.Conv2d(2, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "linear on images": lambda: (nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Flatten()),
    "no convolution": lambda: (nn.Flatten(), nn.LeakyReLU()),
}


def images(dtype=torch.float32):
    return torch.randn(
        CLIENTS, BATCH, 2, 9, 7, dtype=dtype, generator=torch.Generator().manual_seed(3)
    )


def with_head(layers):
    size = nn.Sequential(*layers)(images()[0].clone()).shape[1]
    return guarded(nn.Sequential(*layers, nn.Linear(size, 3)), torch.float32)


def stacked(model):
    """Return weights of several clients."""
    stream = torch.Generator().manual_seed(1)
    return {
        name: torch.stack([
            value.detach() + 0.1 * torch.randn(value.shape, generator=stream).to(value.dtype)
            for _ in range(CLIENTS)
        ]).requires_grad_()
        for name, value in model.named_parameters()
    }  # fmt: skip


def assert_as_one_by_one(model, inputs, most):
    chain, weights = chain_of(model), stacked(model)
    assert chain is not None
    logits = chain(weights, inputs.clone())
    alone = torch.stack([
        functional_call(model, {name: value[k] for name, value in weights.items()}, (inputs[k],))
        for k in range(CLIENTS)
    ])  # fmt: skip
    torch.testing.assert_close(logits, alone, rtol=most, atol=most)
    slopes = [torch.autograd.grad(it.square().sum(), weights.values()) for it in (logits, alone)]
    for left, right in zip(*slopes, strict=True):
        assert (left - right).norm() <= most * right.norm()


@pytest.mark.parametrize("name", CONV)
def test_clients_together_are_as_one_by_one(name):
    with global_stream(0, "chain"):
        model = with_head(CONV[name]()).double()
    assert_as_one_by_one(model, images(torch.float64), 1e-12)


@pytest.mark.parametrize(
    "layer", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d((3, 1)), nn.AdaptiveAvgPool2d(2)]
)
def test_no_client_is_pooled_with_another_where_images_have_no_channels(layer):
    inputs = images(torch.float64)[:, :, 0]
    with global_stream(0, "chain"):
        size = layer(inputs[0]).flatten(1).shape[1]
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(size, 3)).double()
    assert_as_one_by_one(model, inputs, 1e-12)


@pytest.mark.parametrize("name", ["cnn", "mlp", "lenet", "lenet5"])
def test_models_of_a_run_are_chains(name):
    model = models.build(Model(name=name), Form((1, 28, 28), 10), seed=0)
    inputs = torch.rand(CLIENTS, BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert_as_one_by_one(model, inputs, 2e-5)


def hooked():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def tied():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    return model


def twice():
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(2, 2),
        nn.Sequential(),
        nn.Sequential(nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
        nn.Sequential(nn.Dropout(), nn.Linear(2, 2)),
        nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2)),
        nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.Linear(2, 2)),
        nn.Sequential(nn.MaxPool2d(2, return_indices=True), nn.Linear(2, 2)),
        nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)),
        nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)),
        hooked(),
        tied(),
        twice(),
    ],
)
def test_any_other_model_is_none(model):
    assert chain_of(model) is None


def test_a_copy_is_a_chain_too():
    model = models.build(Model(name="cnn"), Form((1, 28, 28), 10), seed=0)
    assert chain_of(copy.deepcopy(model)) is not None
