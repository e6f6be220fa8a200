import pytest
import torch

from defenses import build, chain, clip, freeze
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from tests.builders import bilinear, same_params

UPDATE = {
    "0.weight": torch.ones(2, 3),
    "0.bias": torch.ones(2, dtype=torch.float64),
    "01.bias": torch.ones(()),
    "head.weight": torch.full((3,), -1.0, dtype=torch.float16),
}
LOCAL = LocalTraining(lr=0.1, batch_size=1)


@pytest.mark.parametrize(
    ("layers", "frozen"),
    [
        (["0"], {"0.weight", "0.bias"}),
        (["0.bias"], {"0.bias"}),
        (["head", "0.weight"], {"head.weight", "0.weight"}),
        (["0", "01", "head"], set(UPDATE)),
    ],
)
def test_the_named_tensors_are_zero_and_the_others_as_they_were(layers, frozen):
    sent, _ = freeze(layers=layers).apply(UPDATE, {}, generator(0))
    assert {name for name, value in sent.items() if not value.any()} == frozen
    kept = [name for name in UPDATE if name not in frozen]
    assert same_params({n: sent[n] for n in kept}, {n: UPDATE[n] for n in kept})
    for name, value in UPDATE.items():
        assert (sent[name].dtype, sent[name].shape) == (value.dtype, value.shape)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["0", "haed"], "layers: must be in the model, got 'haed'; did you mean 'head'?"),
        (["0.wieght"], "layers: must be in the model, got '0.wieght'; did you mean '0.weight'?"),
        (["xyz"], "layers: must be in the model, got 'xyz'; one of 0, 01, head"),
        ([""], "layers: must be in the model, got ''; one of 0, 01, head"),
        ([], "layers: must name at least one, got none"),
    ],
)
def test_a_layer_that_an_update_lacks_fails_closed(layers, sentence):
    with pytest.raises(ValueError, match=".") as error:
        freeze(layers=layers).apply(UPDATE, {}, generator(0))
    assert str(error.value) == sentence


def test_it_is_checked_against_the_model_before_round_1():
    model = bilinear(3)
    chain(clip(), freeze(layers=["0", "2.bias"])).check(model, LOCAL, [10])
    with pytest.raises(ValueError, match="^layers: must name at least one, got none$"):
        freeze().check(model, LOCAL, [10])
    with pytest.raises(ValueError, match="^layers: must be in the model, got '1'; one of 0, 2$"):
        freeze(layers=["1"]).check(model, LOCAL, [10])
    model.get_parameter("0.bias").requires_grad_(False)
    with pytest.raises(ValueError, match="^layers: must be in the model, got '0.bias'; did you"):
        freeze(layers=["0.bias"]).check(model, LOCAL, [10])


def test_no_update_grows_longer():
    assert freeze(layers=["0"]).bound(3.0) == 3.0


def test_layers_come_as_a_list():
    build([Part.model_validate({"name": "freeze", "layers": ["0"]})])
    with pytest.raises(ConfigError, match="^defense.freeze.layers: "):
        build([Part.model_validate({"name": "freeze", "layers": "0"})])
