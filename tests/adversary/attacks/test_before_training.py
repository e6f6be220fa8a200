"""What `analytic` and `joint` say before they work: architectures, ranges and budgets."""

import pytest
import torch
from torch import nn

from adversary.attacks.analytic import planned
from adversary.attacks.joint import joint
from fedsim.core.errors import ConfigError, NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.run.prepare import prepare
from tests.builders import observe, small_config


def test_an_architecture_that_it_cannot_read_is_named_before_training():
    local = LocalTraining(lr=0.1, batch_size=1)
    withheld = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert planned(Auxiliary(withheld, 2, input_shape=(4,)), local, 1) == ""
    withheld[0].bias.requires_grad_(False)
    text = planned(Auxiliary(withheld, 2, input_shape=(4,)), local, 1)
    assert text == "will refuse every update: 0: must be trained as it is, got a frozen layer"
    bare = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2))
    assert planned(Auxiliary(bare, 2, input_shape=(4,)), local, 1).startswith("will refuse every")


def test_a_claim_of_many_examples_is_refused_with_an_estimate():
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 10))
    gradient = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    view = observe(gradient, 100_000, sent=model)
    with pytest.raises(NotApplicable, match=r"budget: must be at least .* for 100000 examples"):
        joint(view, Auxiliary(model, 10, input_shape=(64,)), generator(0))


@pytest.mark.parametrize(
    ("attack", "value"),
    [("joint", "steps=0"), ("inverting-gradients", "lr=nan"), ("dlg", "tv=-1")],
)
def test_an_option_out_of_range_is_refused_before_training(attack, value):
    key, number = value.split("=")
    with pytest.raises(ConfigError, match=f"attack.*{key}.*greater|attack.*{key}.*finite"):
        prepare(small_config(attack=[{"name": attack, key: float(number)}]))
