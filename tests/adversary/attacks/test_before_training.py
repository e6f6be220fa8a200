"""What attacks say before they work: ranges and budgets."""

import pytest
import torch
from torch import nn

from adversary.attacks.joint import joint
from adversary.grading.selection import build
from fedsim.config import Part
from fedsim.core.errors import ConfigError, NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.run.prepare import prepare
from tests.builders import observe, small_config


def test_a_claim_of_many_examples_is_refused_with_an_estimate():
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 10))
    gradient = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    view = observe(gradient, 100_000, sent=model)
    with pytest.raises(NotApplicable, match=r"budget: must be at least .* for 100000 examples"):
        joint(view, Auxiliary(model, 10, input_shape=(64,)), generator(0))


def test_joint_says_how_long_it_may_take_with_its_options():
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 10))
    auxiliary = Auxiliary(model, 10, input_shape=(64,))
    local = LocalTraining(lr=0.1, batch_size=1, epochs=5)
    of = lambda **options: build([Part(name="joint", **options)], auxiliary)[0]
    said = of().planned(auxiliary, local, 4)
    assert said.startswith("takes up to about ")
    assert ": 40 steps from each of 4 starts" in said
    assert of(steps=20).planned(auxiliary, local, 4).endswith("20 steps from each of 4 starts")
    assert of(budget=1e-6).planned(auxiliary, local, 4).startswith("will refuse every update: ")
    assert of(steps=1).planned(auxiliary, LocalTraining(0.1, 1, upload="gradient"), 1) == ""


@pytest.mark.parametrize(
    ("attack", "value"),
    [("joint", "steps=0"), ("inverting-gradients", "lr=nan"), ("dlg", "tv=-1")],
)
def test_an_option_out_of_range_is_refused_before_training(attack, value):
    key, number = value.split("=")
    with pytest.raises(ConfigError, match=f"attack.*{key}.*greater|attack.*{key}.*finite"):
        prepare(small_config(attack=[{"name": attack, key: float(number)}]))
