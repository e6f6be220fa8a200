import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.attacks.reconstruction_rules import RULES
from adversary.attacks.spear_plus_plus import spear_plus_plus
from adversary.inversion.dictionary import operations
from adversary.inversion.relu_batch import UnfinishedError
from adversary.inversion.setting import Setting
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, View
from tests.adversary.inversion.inversion_cases import CLASSES, gradient, images, net, psnr, view

SHAPE = (3, 8, 8)


def received(count, units, *behind, seed=0, change=lambda name, value: value):
    """Return a batch, what the server sees of it, and the adversary."""
    behind = behind or (nn.Linear(units, CLASSES),)
    model = net(nn.Flatten(), nn.Linear(192, units), nn.ReLU(), *behind, seed=seed)
    x = images(count, *SHAPE, seed=seed)
    labels = torch.randint(CLASSES, (count,), generator=generator(seed, "labels"))
    observed = view(model, gradient(model, x, labels), count)
    update = observed.latest.update
    delta = {name: change(name, value) for name, value in update.delta.items()}
    changed = replace(observed.latest, update=replace(update, delta=delta))
    return x, View([changed]), Auxiliary(model, CLASSES, input_shape=SHAPE)


def test_an_answer_of_a_deep_model_has_no_remark():
    behind = nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, CLASSES)
    x, observed, known = received(12, 300, *behind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guess = spear_plus_plus(observed, known, generator(0))
    assert guess.dtype == torch.float64
    assert min(max(psnr(one, true) for one in guess) for true in x) > 150


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.3])
def test_of_noise_nothing_or_the_batch_is_returned(seed, noise):
    stream = generator(seed, "noise")

    def noised(_, value):
        return value + noise * value.square().mean().sqrt() * torch.randn(
            value.shape, generator=stream, dtype=value.dtype
        )

    x, observed, known = received(6, 120, seed=seed, change=noised)
    try:
        guess = spear_plus_plus(observed, known, generator(0), draws=100)
    except ValueError:
        return
    assert min(max(psnr(one, true) for one in guess) for true in x) > 40


def test_an_unfinished_search_is_resumed_from_its_folder(tmp_path: Path):
    x, observed, known = received(12, 200)
    with pytest.raises(UnfinishedError, match="of 1 allowed"):
        spear_plus_plus(observed, known, generator(0), draws=1, resume=str(tmp_path))
    guess = spear_plus_plus(observed, known, generator(0), resume=str(tmp_path))
    assert min(max(psnr(one, true) for one in guess) for true in x) > 150


@pytest.mark.parametrize("limits", [{"draws": 0}, {"seconds": -1.0}])
def test_limits_out_of_range_are_one_sentence(limits):
    _, observed, known = received(2, 50)
    with pytest.raises(NotApplicable, match="spear-plus-plus: draws must be at least 1 and"):
        spear_plus_plus(observed, known, generator(0), **limits)


def test_the_cost_grows_with_the_fourth_power_of_the_batch_and_memory_with_the_layer():
    _, _, known = received(2, 50)
    small, large = (ATTACKS["spear-plus-plus"].estimate(known, count) for count in (32, 64))
    assert large.seconds == pytest.approx(16 * small.seconds)
    assert large.num_bytes > small.num_bytes > 8 * 50 * 192


@pytest.mark.parametrize(
    ("count", "names"), [(32, ["spear"]), (33, ["spear-plus-plus"]), (129, [])]
)
def test_the_size_of_the_batch_says_which_of_the_two_is_tried(count, names):
    setting = Setting(
        shape=SHAPE,
        local=LocalTraining(0.1, count, upload="gradient"),
        count=count,
        steps=1,
        first="1",
        after="ReLU",
        positions=None,
        structure=None,
        unwalkable=None,
        mixing=None,
        kink="ReLU",
        records=False,
        narrow=None,
        flat=None,
        cost=1.0,
    )
    spears = [rule for rule in RULES if rule.name.startswith("spear")]
    assert [rule.name for rule in spears if rule.applies(setting)] == names


def test_operations_are_of_the_order_of_a_minute_of_one_core_at_128_examples():
    assert 1e11 < operations(128) < 1e13
