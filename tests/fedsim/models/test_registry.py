import pytest
import torch

from fedsim import models
from fedsim.core.errors import ConfigError
from fedsim.core.form import Form
from tests.builders import small_config


def build(model, shape, classes, seed=0):
    return models.build(small_config(model=model).model, Form(shape, classes), seed=seed)


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters"),
    [
        ("cnn", (1, 28, 28), 10, 42_706),
        ("cnn", (1, 8, 8), 10, 8_146),
        ("mlp", (104,), 2, 104 * 128 + 128 + 2 * 128 + 2),
        ("lenet", (3, 32, 32), 100, 3 * 12 * 25 + 2 * 12 * 12 * 25 + 36 + 768 * 100 + 100),
        ("rgap-cnn6", (3, 32, 32), 10, 154_266),
        ("rgap-cnn6", (1, 9, 6), 3, 576 // 3 + 3888 + 2 * 11664 + 20736 + 73728 + 3 * 257),
        ("resnet18", (3, 32, 32), 10, 11_181_642),
        ("vit", (3, 32, 32), 10, 12 * 444_864 + 48 * 192 + 192 + 66 * 192 + 2 * 192 + 1930),
        ("tests.builders:bilinear", (4,), 3, 5 * 5 + 6 * 3),
    ],
)
def test_models_have_the_expected_size_and_depend_on_the_seed_alone(
    name, shape, classes, parameters
):
    first, again, other = (build(name, shape, classes, seed) for seed in (0, 0, 1))
    assert size(first) == parameters
    for one, two in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    if ":" not in name:  # the builder of tests seeds itself
        assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_resnet_has_batch_norm_only_when_asked():
    group, batch = (
        build({"name": "resnet18", "norm": norm}, (1, 28, 28), 10) for norm in ("group", "batch")
    )
    assert not list(group.buffers())
    assert len(models.trainable(group)) == len(list(group.state_dict()))
    assert any("num_batches_tracked" in name for name, _ in batch.named_buffers())


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        ("cnnn", (1, 8, 8), "model.name: must be a known name, got 'cnnn'; did you mean 'cnn'"),
        ({"name": "mlp", "hidden": "x"}, (4,), "model.hidden: .*valid integer"),
        ({"name": "resnet18", "norm": "layer"}, (1, 8, 8), "model.norm: .*'group' or 'batch'"),
        ("cnn", (104,), "model.name: 'cnn' must be built.*images"),
        (
            "tests.builders:bilinear",
            (9,),
            r"model.name: must take inputs of .*'tests.builders:bilinear' those of \(2, 9\), got",
        ),
        ("fedsim.core.rng:derive", (4,), "model.name: 'fedsim.core.rng:derive' must be built"),
        ("builtins:dict", (4,), "name: must be a function or a class"),
    ],
)
def test_a_model_that_does_not_fit_is_one_sentence(model, shape, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(model, shape, 3)


def test_a_model_with_the_wrong_number_of_logits():
    with pytest.raises(
        ConfigError,
        match=r"must give a logit per class .* got 'torch.nn:Identity' with shape \(2, 4\)",
    ):
        build("torch.nn:Identity", (4,), 3)
