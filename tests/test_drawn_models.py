"""Five hundred models before their door: refused in one sentence, or trained alike twice."""

import copy
from collections import Counter

import pytest
import torch

from clients.train import train
from fedsim import api, models
from fedsim.config import parse
from fedsim.core.errors import ConfigError, FedsimError
from fedsim.core.form import Form
from fedsim.core.params import alike
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining
from tests.drawn_models import MOVING

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of torch, about odd models
]
COUNT, RUNS = 500, 16
NOISE = [{"name": "clip", "bound": 0.001}, {"name": "gaussian", "std": 0.01}]
LOCAL = LocalTraining(lr=0.1, batch_size=4, epochs=2)
INPUTS = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3


def config_of(number):
    return parse(
        {
            "model": {"name": "tests.drawn_models:Drawn", "number": number},
            "data": {"name": "tests.builders:toy_dataset", "partition": "iid"},
            "federation": {"rounds": 1, "clients": 2},
            "local": {"epochs": 1, "batch_size": 10},
            "defense": NOISE,
            "attack": [{"name": "llg"}],
        }
    )


def one_line(error):
    assert str(error).isprintable()
    assert ": " in str(error)


def built(number):
    """Return the model, or None where it is refused in a sentence."""
    try:
        return models.build(config_of(number).model, Form((4,), 3), seed=0)
    except ConfigError as error:
        one_line(error)
        return None
    finally:
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()


def trained(model, inputs):
    with global_stream(0, "twice"):
        working = copy.deepcopy(model)
        coins = generator(0, "order")
        return train(working, model.state_dict(), inputs, LABELS, LOCAL, generator=coins)[0]


def test_five_hundred_models_are_refused_in_a_sentence_or_train_alike_twice():
    outcomes, inputs = Counter(), INPUTS.clone()
    for number in range(COUNT):
        model = built(number)
        if model is None:
            outcomes["refused"] += 1
            continue
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            first = trained(model, inputs)
        except SystemExit:  # at a size of batch that the run's own sizes are tried for
            assert model.odd == "leaves"
            continue
        second = trained(model, inputs)
        assert all(alike(first[name], second[name]) for name in first), number
        assert all(alike(before[n], v) for n, v in model.state_dict().items()), number
        assert torch.equal(inputs, INPUTS), number
        outcomes["accepted"] += 1
    assert outcomes["refused"] > 100
    assert outcomes["accepted"] > 100


def test_runs_of_drawn_models_write_an_epsilon_only_where_no_state_moves(tmp_path):
    numbers = (number for number in range(COUNT) if built(number) is not None)
    outcomes = Counter()
    for number, _ in zip(numbers, range(RUNS), strict=False):
        model = built(number)
        try:
            run = api.run(config_of(number), tmp_path / str(number))
        except FedsimError as error:
            one_line(error)
            assert not (tmp_path / str(number)).exists()
            outcomes["refused"] += 1
            continue
        count = sum(row["metric"] == "epsilon" for row in run.metrics().to_pylist())
        moving = model.state in MOVING or model.layer in ("batch", "spectral")
        assert count == (0 if moving else 2), (number, model.state, model.layer)
        outcomes[f"{count} rows"] += 1
    assert set(outcomes) >= {"0 rows", "2 rows"}
