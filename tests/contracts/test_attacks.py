"""What every attack must keep; a new line in ATTACKS is tested here by itself."""

import math

import pytest
import torch

from adversary.attacks import ATTACKS
from adversary.families import FAMILIES
from fedsim.rng import generator
from fedsim.types import Auxiliary, Candidates, Truth
from tests.builders import bilinear, observe, plain_gradient, same_params

NUM_CLASSES = 10
MODEL = bilinear(NUM_CLASSES, features=20)
AUX_LABELS = torch.arange(200) % NUM_CLASSES
CANDIDATES = Candidates(torch.rand(100, 4, generator=generator(0, "asked")), AUX_LABELS[:100])
AUXILIARY = Auxiliary(
    MODEL,
    NUM_CLASSES,
    torch.rand(200, 4, generator=generator(0, "auxiliary")),
    AUX_LABELS,
    candidates=CANDIDATES,
)
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}


def attacks(family=None):
    """Run a test once per attack, of one family or of all."""
    names = [name for name, attack in ATTACKS.items() if family in (None, attack.family)]
    return pytest.mark.parametrize("attack", [ATTACKS[name] for name in names], ids=names)


def trial(seed, *, independent=False, size=1):
    """One client's view and truth; `independent`: an update that is nothing but noise.

    The client's examples are among the candidates.
    """
    stream = generator(seed, "trial")
    rows = torch.randperm(len(CANDIDATES.labels), generator=stream)[:size]
    labels = CANDIDATES.labels[rows]
    gradient = plain_gradient(MODEL, CANDIDATES.inputs[rows], labels)
    if independent:
        gradient = {k: torch.randn(v.shape, generator=stream) for k, v in gradient.items()}
    members = torch.isin(torch.arange(len(CANDIDATES.labels)), rows)
    return observe(gradient, size, sent=SENT), Truth(labels, rows, members, CANDIDATES.labels)


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


@attacks()
def test_it_beats_the_blind_guess_on_a_plain_gradient_unless_it_does_not_look(attack):
    gain, error = mean_advantage(attack, 50)
    if attack.baseline:
        assert gain <= 3.5 * error
    else:
        assert gain > 5 * error


@attacks()
@pytest.mark.parametrize("size", [1, 8])
def test_it_has_no_advantage_on_noise(attack, size):
    gain, error = mean_advantage(attack, 120, independent=True, size=size)
    assert gain <= 3.5 * error


@attacks()
def test_the_same_seed_gives_the_same_answer_and_the_view_is_left_alone(attack):
    view, _ = trial(3, size=5)
    before = {name: value.clone() for name, value in view.latest.update.delta.items()}
    first, second = (attack.infer(view, AUXILIARY, generator(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert same_params(view.latest.update.delta, before)


@attacks("label")
@pytest.mark.parametrize("size", [1, 2, 17])
def test_counts_have_the_right_shape(attack, size):
    view, truth = trial(0, size=size)
    guess = attack.infer(view, AUXILIARY, generator(0))
    assert guess.shape == (NUM_CLASSES,)
    assert guess.dtype == torch.int64
    assert int(guess.min()) >= 0
    assert int(guess.sum()) == size
    assert set(FAMILIES[attack.family].grade(guess, truth)) == set(FAMILIES[attack.family].metrics)


@attacks("membership")
@pytest.mark.parametrize("size", [1, 2, 17])
def test_there_is_a_score_per_candidate(attack, size):
    view, truth = trial(0, size=size)
    guess = attack.infer(view, AUXILIARY, generator(0))
    assert guess.shape == CANDIDATES.labels.shape
    assert guess.dtype == torch.float64
    assert bool(torch.isfinite(guess).all())
    assert set(FAMILIES[attack.family].grade(guess, truth)) == set(FAMILIES[attack.family].metrics)


@attacks("label")
@pytest.mark.parametrize(
    "gradient",
    [
        {name: torch.zeros_like(value) for name, value in SENT.items()},
        {name: -torch.rand_like(value) for name, value in SENT.items()},
        {name: torch.rand_like(value) for name, value in SENT.items()},
    ],
    ids=["zero", "negative", "positive"],
)
def test_odd_gradients_get_a_defined_answer(attack, gradient):
    guess = attack.infer(observe(gradient, 4, sent=SENT), AUXILIARY, generator(0))
    assert int(guess.sum()) == 4


def one_batch(counts):
    """Return the view of one batch with these label counts, and an adversary with 20 of each."""
    classes = len(counts)
    model, stream = bilinear(classes, features=20), generator(0, "one batch", classes)
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    inputs = torch.rand(len(labels), 4, generator=stream)
    there = torch.arange(20 * classes) % classes
    auxiliary = Auxiliary(model, classes, torch.rand(len(there), 4, generator=stream), there)
    return observe(plain_gradient(model, inputs, labels), len(labels), sent=model), auxiliary


@attacks("label")
@pytest.mark.parametrize("counts", [[1, 0], [0, 9], [5, 4]])
def test_two_classes_are_enough(attack, counts):
    view, auxiliary = one_batch(counts)
    guess = attack.infer(view, auxiliary, generator(0))
    assert guess.shape == (2,)
    assert int(guess.min()) >= 0
    assert int(guess.sum()) == sum(counts)


@attacks("label")
@pytest.mark.parametrize("size", [1, 40])
def test_a_batch_of_one_class(attack, size):
    view, auxiliary = one_batch([0, 0, size, 0, 0])
    guess = attack.infer(view, auxiliary, generator(0))
    assert int(guess.sum()) == size
    if not attack.baseline:  # attacks that only tell which classes are there name others too
        assert int(guess[2]) == int(guess.max())


@attacks("label")
@pytest.mark.parametrize("size", [1, 3])
def test_fewer_examples_than_classes_with_negative_entries(attack, size):
    gradient = {name: torch.zeros_like(value) for name, value in SENT.items()}
    gradient["2.weight"][:9] = -torch.arange(1.0, 10.0).unsqueeze(1)
    gradient["2.weight"][9] = 45.0
    gradient["2.bias"] = gradient["2.weight"][:, 0] / 45
    guess = attack.infer(observe(gradient, size, sent=SENT), AUXILIARY, generator(0))
    assert int(guess.min()) >= 0
    assert int(guess.sum()) == size


@attacks()
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(attack, value):
    gradient = {name: tensor.clone() for name, tensor in SENT.items()}
    gradient["2.weight"][3, 1] = value
    if attack.baseline:  # it does not look
        assert int(attack.infer(observe(gradient, 4), AUXILIARY, generator(0)).sum()) == 4
        return
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        attack.infer(observe(gradient, 4, sent=SENT), AUXILIARY, generator(0))
