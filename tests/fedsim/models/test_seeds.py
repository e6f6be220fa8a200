import random

import numpy as np
import pytest
import torch

from fedsim import models
from fedsim.core.errors import ConfigError
from fedsim.core.form import Form
from tests.builders import same_params, small_config


def odd(name, shape=(4,), classes=3, seed=0):
    return models.build(
        small_config(model=f"tests.odd_models:{name}").model, Form(shape, classes), seed=seed
    )


@pytest.mark.parametrize("name", ["lazy", "LateLayers", "Dice", "Counter"])
def test_the_seed_decides_weights_whatever_was_drawn_before(name):
    first = odd(name).state_dict()
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    random.random()
    assert same_params(first, odd(name).state_dict())
    assert not same_params(first, odd(name, seed=1).state_dict())
    assert len(first) >= 2


@pytest.mark.parametrize(
    ("name", "got"),
    [("Unseeded", "another head.weight"), ("GlobalCounter", "another gradient or state of body")],
)
def test_a_model_that_no_seed_decides_is_refused(name, got):
    with pytest.raises(ConfigError, match=f"must be decided by the seed.* with {got}"):
        odd(name)


def test_the_generators_of_the_user_are_as_before():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    odd("Dice")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_the_model_that_is_handed_out_was_never_trained():
    model = odd("Counter")
    assert model.calls == 1  # the look at zeros
    assert torch.allclose(model.hidden, torch.tensor(0.01))
