"""Populations whose best adversary is known in closed form: the games' adversary is as good."""

import pytest
import torch
from torch import nn

from adversary.games import GAMES
from adversary.games.learn import Adversary
from adversary.games.learner import Learner
from adversary.games.play import play
from adversary.games.records import Pool
from adversary.games.scores import auroc_of, information
from fedsim.core.rng import generator, global_stream
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.games.game_cases import error

SIZE, TRIALS, SHADOWS = 2000, 2000, 1200
MOVED = 0.4  # by which the secret moves every one of many real features, in standard deviations


def one_feature(prior):
    """Return records of a single feature, which is the secret; all labels are equal."""
    marks = (torch.arange(SIZE) < prior * SIZE).long()
    return Pool(marks[:, None].float(), torch.ones(SIZE, dtype=torch.int64), marks)


def many_features(half):
    """Return records of 88 real features, each of which hints at the secret."""
    stream = generator(0, "features", half)
    marks = torch.arange(SIZE) % 2
    inputs = torch.randn(SIZE, 88, generator=stream) + MOVED * (2 * marks[:, None] - 1)
    return Pool(inputs, torch.randint(2, (SIZE,), generator=stream), marks)


def answered(model, pools, batch, *, trials=TRIALS, shadows=SHADOWS):
    """Return what an adversary answered in the game of attributes, without a defense."""
    client = Learner(Auxiliary(model, 2), LocalTraining(0.1, batch, upload="gradient"))
    private, public = pools
    adversary = Adversary(
        game=GAMES["attribute"], rules=Rules(batch), learner=client, pool=public, shadows=shadows
    )
    return play(adversary, private, [model.state_dict()], trials=trials)["static"]


@pytest.mark.parametrize(
    ("prior", "batch", "ceiling"),
    [
        (0.675, 4, 0.789), (0.675, 16, 0.649), (0.675, 64, 0.575),
        (0.31, 4, 0.792), (0.31, 16, 0.651), (0.31, 64, 0.576),
    ],
)  # fmt: skip
def test_a_count_that_the_norm_gives_away_is_read_off_it(prior, batch, ceiling):
    # The gradient is −(1 − p) · count / B in one direction: its norm is all that there is.
    with global_stream(0, "logistic"):
        model = nn.Linear(1, 2, bias=False)
    one = answered(model, [one_feature(prior)] * 2, batch)
    assert GAMES["attribute"].ceiling(Rules(batch), prior) == pytest.approx(ceiling, abs=6e-4)
    measured = auroc_of(one.log_probabilities, one.secrets)
    assert measured.value == pytest.approx(ceiling, abs=3.5 * error(measured))
    bits = information(one.log_probabilities, one.secrets)
    assert bits.value > 0  # the calibration, too, is of what there is


def test_an_input_that_can_be_read_exactly_tells_all_that_it_holds():
    with global_stream(0, "network"):
        model = nn.Sequential(nn.Linear(88, 16), nn.ReLU(), nn.Linear(16, 2))
    pools = [many_features(half) for half in ("private", "auxiliary")]
    one = answered(model, pools, 1, trials=600, shadows=900)
    # Φ(√(2 · 88) · MOVED) = 1 − 6e-8 of the input itself; a forest on magnitudes has 0.891.
    assert auroc_of(one.log_probabilities, one.secrets).value >= 0.999
