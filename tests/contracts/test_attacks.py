"""What every attack must keep; a new attack is tested here by itself."""

import pytest
import torch

from adversary.attacks import ATTACKS
from adversary.grading.families import FAMILIES
from adversary.grading.selection import kinds_of
from adversary.over_rounds import SCORES
from fedsim.conformance import board, properties
from fedsim.conformance.sequential import has_advantage
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary
from tests.builders import bilinear, observe, plain_gradient

ONCE = (*SCORES, "attribute")  # on one round the same function, or refused for a new batch
WITHOUT_SIGNAL = (
    "uia-ratio",  # the records here say of no other record of the user what it is
    *("duci", "duci-cosine"),  # one record of a set of fifty is less than the error of a count
)


def attacks(*families):
    """Run a test once per attack, of some families or of all but reconstruction.

    An attack that is averaged over rounds is the same function as on one round. What reconstructs
    wants a picture, and takes its time. What is shown rounds without names, and what reads models
    of tokens alone, has tests of its own.
    """
    own = {name: a for name, a in ATTACKS.items() if not (a.over_rounds and a.family in ONCE)}
    own = {name: a for name, a in own.items() if "values" in kinds_of(a)}
    asked = families or set(FAMILIES) - {"reconstruction", "linkage"}
    names = [name for name, attack in own.items() if attack.family in asked]
    return pytest.mark.parametrize("attack", [ATTACKS[name] for name in names], ids=names)


def sizes(*values):
    """Run a test once per size; types are checked with the last, because no type depends on it."""
    untyped = [pytest.param(value, marks=pytest.mark.untyped) for value in values[:-1]]
    return pytest.mark.parametrize("size", [*untyped, values[-1]])


@pytest.mark.slow
@attacks()
def test_it_beats_the_blind_guess_on_a_plain_gradient_unless_it_does_not_look(attack):
    if attack.name in WITHOUT_SIGNAL:
        assert not has_advantage(properties.gains(attack))
    else:
        assert properties.beats_blind(attack) is None


@pytest.mark.slow
@attacks()
def test_it_has_no_advantage_on_noise(attack):
    assert properties.chance_without_data(attack) is None


@pytest.mark.untyped
@attacks()
def test_the_same_seed_gives_the_same_answer_and_the_view_is_left_alone(attack):
    assert properties.same_seed(attack) is None
    assert properties.view_untouched(attack) is None


@attacks("label")
def test_many_views_get_the_answers_that_each_gets_alone(attack):
    if attack.infer_all is not None:
        assert properties.same_together(attack) is None


@attacks()
def test_answers_have_the_familys_shape_and_type(attack):
    assert properties.valid_answers(attack) is None


@attacks("label")
def test_odd_gradients_get_a_defined_answer(attack):
    assert properties.answers_odd_gradients(attack) is None


def one_batch(counts):
    """Return the view of one batch with these label counts, and an adversary with 20 of each."""
    classes = len(counts)
    model, stream = bilinear(classes, features=20), generator(0, "one batch", classes)
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    inputs = torch.rand(len(labels), 4, generator=stream)
    there = torch.arange(20 * classes) % classes
    auxiliary = Auxiliary(
        model, classes, inputs=torch.rand(len(there), 4, generator=stream), labels=there
    )
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
@sizes(1, 40)
def test_a_batch_of_one_class(attack, size):
    view, auxiliary = one_batch([0, 0, size, 0, 0])
    guess = attack.infer(view, auxiliary, generator(0))
    assert int(guess.sum()) == size
    if not attack.baseline:  # attacks that only tell which classes are there name others too
        assert int(guess[2]) == int(guess.max())


@attacks("label")
@sizes(1, 3)
def test_fewer_examples_than_classes_with_negative_entries(attack, size):
    gradient = {name: torch.zeros_like(value) for name, value in board.SENT.items()}
    gradient["2.weight"][:9] = -torch.arange(1.0, 10.0).unsqueeze(1)
    gradient["2.weight"][9] = 45.0
    gradient["2.bias"] = gradient["2.weight"][:, 0] / 45
    guess = attack.infer(observe(gradient, size, sent=board.SENT), board.AUXILIARY, generator(0))
    assert int(guess.min()) >= 0
    assert int(guess.sum()) == size


@pytest.mark.untyped
@attacks()
def test_nan_and_infinity_are_refused_by_a_value_error(attack):
    assert properties.refuses_not_finite(attack) is None


@attacks("reconstruction")
@pytest.mark.parametrize(
    "of",
    [
        *("beats_blind", "valid_answers", "chance_without_data"),
        *(pytest.param(of, marks=pytest.mark.untyped) for of in ("same_seed", "view_untouched")),
    ],
)
def test_what_reconstructs_keeps_the_same_contract(attack, of):
    assert getattr(properties, of)(attack) is None
