import pytest
from torch import nn

from defenses import chain, check_fit, clip, dp_sgd, gaussian, mixup, perturb, soteria
from fedsim.core.form import Form
from fedsim.core.types import LocalTraining
from fedsim.models import build
from tests.builders import bilinear, small_config

LOCAL = LocalTraining(0.1, 8)
NOISE = chain(clip(bound=0.001), gaussian(std=0.01))


def odd(name):
    return build(small_config(model=f"tests.odd_models:{name}").model, Form((4,), 3), seed=0)


def normed(layer):
    return nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 3))


def fit(defense, model):
    return check_fit(defense, model, LOCAL, [50], Form((4,), 3))


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("Plain", ()),
        ("Dice", ()),
        ("Witness", ("seen",)),
        ("SumWitness", ("count",)),
    ],
)
def test_state_that_training_moves_by_itself_is_named_where_an_epsilon_is_claimed(name, moved):
    assert fit(NOISE, odd(name)) == moved
    assert fit(chain(clip()), odd(name)) == ()
    if moved:
        with pytest.raises(
            ValueError, match=f"must have no state that training .*, got {moved[0]}"
        ):
            fit(dp_sgd(), odd(name))


def test_statistics_of_a_layer_of_torch_move_and_those_of_a_frozen_one_do_not():
    model = normed(nn.BatchNorm1d(4))
    assert fit(NOISE, model) == ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert fit(NOISE, normed(nn.BatchNorm1d(4, track_running_stats=False))) == ()


@pytest.mark.parametrize("defense", [dp_sgd(), perturb(), soteria(layer="0")])
def test_a_model_that_mixes_examples_is_refused_with_its_layer(defense):
    with pytest.raises(ValueError, match="must not mix examples .* got 1 = BatchNorm1d; use Group"):
        fit(defense, normed(nn.BatchNorm1d(4)))
    assert fit(defense, bilinear(3)) == ()
    assert fit(defense, normed(nn.GroupNorm(2, 4))) == ()


def test_layers_that_mix_are_recognised_by_what_they_do():
    with pytest.raises(ValueError, match="must not mix examples .* got Centred"):
        fit(dp_sgd(), odd("Centred"))


def test_a_memory_of_earlier_batches_is_refused_inside_training_alone():
    with pytest.raises(ValueError, match="must not remember earlier batches under dp-sgd"):
        fit(dp_sgd(), odd("Rememberer"))
    with pytest.raises(ValueError, match="must not remember earlier batches under dp-sgd"):
        fit(dp_sgd(), odd("Bank"))
    assert fit(NOISE, odd("Rememberer")) == ()


def test_what_a_model_keeps_of_single_examples_is_named():
    with pytest.raises(ValueError, match="must not remember earlier examples, got 'bank'"):
        fit(dp_sgd(), odd("ClassBank"))


def test_a_defense_that_cannot_take_the_gradient_is_refused():
    class Looking(nn.Linear):
        def forward(self, input):
            return super().forward(input) * (2.0 if input.sum() > 0 else 1.0)

    with pytest.raises(
        ValueError, match="dp-sgd: model: must train under the defense, got Runtime"
    ):
        fit(dp_sgd(), Looking(4, 3))
    assert fit(mixup(), Looking(4, 3)) == ()
