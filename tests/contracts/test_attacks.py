"""What every attack must keep; a new line in ATTACKS is tested here by itself."""

import math

import pytest
import torch

from adversary.attacks import ATTACKS
from adversary.families import FAMILIES
from fedsim.rng import generator
from fedsim.types import Auxiliary, Truth
from tests.builders import bilinear, observe, plain_gradient, same_params

NUM_CLASSES = 10
MODEL = bilinear(NUM_CLASSES, features=20)
AUX_LABELS = torch.arange(200) % NUM_CLASSES
AUXILIARY = Auxiliary(MODEL, NUM_CLASSES, torch.rand(200, 4), AUX_LABELS)

pytestmark = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))


def trial(seed, *, independent=False, size=1):
    """One client's view and truth; `independent`: an update that is nothing but noise."""
    stream = generator(seed, "trial")
    labels = torch.randint(NUM_CLASSES, (size,), generator=stream)
    gradient = plain_gradient(MODEL, torch.rand(size, 4, generator=stream), labels)
    if independent:
        gradient = {k: torch.randn(v.shape, generator=stream) for k, v in gradient.items()}
    return observe(gradient, size), Truth(labels, labels)


def mean_advantage(attack, trials, **options):
    """Return the mean of value − blind over trials, and its standard error."""
    family = FAMILIES[attack.family]
    gains = []
    for seed in range(trials):
        view, truth = trial(seed, **options)
        guess = attack.infer(view, AUXILIARY, generator(seed, "infer"))
        blind = family.blind(view, AUXILIARY, generator(seed, "blind"))
        main = family.metrics[0]
        gains.append(family.grade(guess, truth)[main] - family.grade(blind, truth)[main])
    values = torch.tensor(gains)
    return float(values.mean()), float(values.std()) / math.sqrt(trials)


def test_it_beats_the_blind_guess_on_a_plain_gradient(attack):
    gain, error = mean_advantage(attack, 50)
    assert gain > 5 * error


@pytest.mark.parametrize("size", [1, 8])
def test_it_has_no_advantage_on_noise(attack, size):
    gain, error = mean_advantage(attack, 300, independent=True, size=size)
    assert gain <= 3.5 * error


def test_the_same_seed_gives_the_same_answer_and_the_view_is_left_alone(attack):
    view, _ = trial(3, size=5)
    before = {name: value.clone() for name, value in view.latest.update.delta.items()}
    first, second = (attack.infer(view, AUXILIARY, generator(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert same_params(view.latest.update.delta, before)


@pytest.mark.parametrize("size", [1, 2, 17])
def test_the_answer_has_the_right_shape(attack, size):
    view, truth = trial(0, size=size)
    guess = attack.infer(view, AUXILIARY, generator(0))
    assert guess.shape == (NUM_CLASSES,)
    assert guess.dtype == torch.int64
    assert int(guess.min()) >= 0
    assert int(guess.sum()) == size
    assert set(FAMILIES[attack.family].grade(guess, truth)) == set(FAMILIES[attack.family].metrics)


@pytest.mark.parametrize(
    "gradient",
    [
        {"2.weight": torch.zeros(NUM_CLASSES, 20), "2.bias": torch.zeros(NUM_CLASSES)},
        {"2.weight": -torch.rand(NUM_CLASSES, 20), "2.bias": -torch.rand(NUM_CLASSES)},
        {"2.weight": torch.rand(NUM_CLASSES, 20), "2.bias": torch.rand(NUM_CLASSES)},
    ],
    ids=["zero", "negative", "positive"],
)
def test_odd_gradients_get_a_defined_answer(attack, gradient):
    guess = attack.infer(observe(gradient, 4), AUXILIARY, generator(0))
    assert int(guess.sum()) == 4
