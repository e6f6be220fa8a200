"""What every defense must keep; a new record is tested here by itself."""

from functools import partial

import pytest
import torch

from defenses import DEFENSES, freeze
from fedsim.core.rng import generator
from fedsim.core.wire import from_record, to_record
from tests.builders import same_params, sticky

ALL = {
    **{name: entry.make for name, entry in DEFENSES.items()},
    "sticky": sticky,
    "freeze": partial(freeze, layers=["conv"]),
}
UPDATE = {
    "conv": torch.randn(4, 3, 5, 5, generator=generator(0, "a")),
    "bias": torch.randn(4, dtype=torch.float64, generator=generator(0, "b")),
    "scale": torch.tensor(2.0),
}

pytestmark = pytest.mark.parametrize("name", ALL)


def apply(name, state=None):
    defense = ALL[name]()
    return defense.apply(UPDATE, defense.init(UPDATE) if state is None else state, generator(1))


def test_names_shapes_and_dtypes_stay(name):
    defended, _ = apply(name)
    assert list(defended) == list(UPDATE)
    for key, value in UPDATE.items():
        assert defended[key].shape == value.shape
        assert defended[key].dtype == value.dtype
        assert torch.isfinite(defended[key]).all()


def test_it_is_pure_and_the_seed_decides(name):
    before = {key: value.clone() for key, value in UPDATE.items()}
    state = ALL[name]().init(UPDATE)
    kept = {key: value.clone() for key, value in state.items()}
    first, _ = apply(name, state)
    second, _ = apply(name, state)
    assert same_params(first, second)
    assert same_params(UPDATE, before)
    assert same_params(state, kept)


def test_its_state_survives_the_wire(name):
    _, state = apply(name)
    back = from_record(to_record(state))
    assert same_params(back, state)
    assert same_params(apply(name, state)[0], apply(name, back)[0])


def test_it_says_what_it_does(name):
    assert ALL[name].__doc__
    assert ALL[name]().name == name
