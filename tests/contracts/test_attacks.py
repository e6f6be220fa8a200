"""What every attack must keep; a new attack is tested here by itself."""

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.grading.families import FAMILIES
from adversary.over_rounds import SCORES
from adversary.secrets import SECRETS, secret_of
from fedsim.core.catalog import options_of
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.secrets import Encoding, Rules
from fedsim.core.types import Auxiliary, Candidates, Ranges, Sets, Truth, View
from tests.builders import bilinear, observe, plain_gradient, same_params
from tests.sequential import has_advantage, is_better

NUM_CLASSES, OTHERS = 10, 7
ONCE = (*SCORES, "attribute")  # on one round the same function, or refused for a new batch
WITHOUT_SIGNAL = (
    "uia-ratio",  # the records here say of no other record of the user what it is
    *("duci", "duci-cosine"),  # one record of a set of fifty is less than the error of a count
)
MODEL = bilinear(NUM_CLASSES, features=20)
AUX_LABELS = torch.arange(200) % NUM_CLASSES
ENCODING = Encoding(torch.tensor([3]), torch.tensor([0.0]), torch.tensor([1.0]))
MARKS = torch.randint(2, (300,), generator=generator(0, "marks"))  # of candidates, then auxiliary
CANDIDATES = Candidates(
    ENCODING.put(torch.rand(100, 4, generator=generator(0, "asked")), MARKS[:100]),
    AUX_LABELS[:100],
)
UNKNOWN = torch.tensor([1.0, 0.0, 0.0, 0.0])  # the entry of a record that ranges leave open
RANGES = Ranges(
    CANDIDATES.inputs * (1 - UNKNOWN), CANDIDATES.inputs.maximum(UNKNOWN), CANDIDATES.labels
)
SETS = Sets(CANDIDATES.inputs[:50], CANDIDATES.labels[:50], {"0": torch.arange(50)}, {"0": 0.5})
AUXILIARY = Auxiliary(
    MODEL,
    NUM_CLASSES,
    inputs=ENCODING.put(torch.rand(200, 4, generator=generator(0, "auxiliary")), MARKS[100:]),
    labels=AUX_LABELS,
    candidates=CANDIDATES,
    ranges=RANGES,
    sets=SETS,
    marks=dict.fromkeys(("attribute", *SECRETS), MARKS[100:]),
    rules=Rules(1, shares=(0.2, 0.8), users=2),
    encoding=ENCODING,
)
MEMORY = Memory()  # the same weights are sent in all trials
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}


def attacks(*families):
    """Run a test once per attack, of some families or of all but reconstruction.

    An attack that is averaged over rounds is the same function as on one round. What reconstructs
    wants a picture, and takes its time. What is shown rounds without names has tests of its own.
    """
    own = {name: a for name, a in ATTACKS.items() if not (a.over_rounds and a.family in ONCE)}
    asked = families or set(FAMILIES) - {"reconstruction", "linkage"}
    names = [name for name, attack in own.items() if attack.family in asked]
    return pytest.mark.parametrize("attack", [ATTACKS[name] for name in names], ids=names)


def sizes(*values):
    """Run a test once per size; types are checked with the last, because no type depends on it."""
    untyped = [pytest.param(value, marks=pytest.mark.untyped) for value in values[:-1]]
    return pytest.mark.parametrize("size", [*untyped, values[-1]])


def trial(seed, *, independent=False, size=1):
    """One client's view and truth; `independent`: updates that are nothing but noise.

    The client's examples are among the candidates, and so are those of the other clients.
    """
    stream = generator(seed, "trial")
    order = torch.randperm(len(CANDIDATES.labels), generator=stream)
    rows, others = order[:size], order[size : size + OTHERS * 8].split(8)
    labels = CANDIDATES.labels[rows]
    view, *cohort = (
        observe(gradient_of(used, stream if independent else None), len(used), sent=SENT, client=c)
        for c, used in zip("01234567", (rows, *others), strict=True)
    )
    members = torch.isin(torch.arange(len(CANDIDATES.labels)), rows)
    users = torch.isin(torch.arange(len(CANDIDATES.labels)), order[: size + OTHERS * 8]).long()
    told = {family: secret_of(family, MARKS[rows], AUXILIARY.rules) for family in SECRETS}
    truth = Truth(
        labels,
        rows,
        members,
        CANDIDATES.labels,
        users,
        ranges=members,  # no other candidate lies in a candidate's range
        range_classes=CANDIDATES.labels,
        in_set=members[:50],
        secrets=told,
        attributes=MARKS[:100] == 1,
    )
    return View(view.observations, [[seen.latest for seen in (view, *cohort)]], MEMORY), truth


def gradient_of(rows, noise=None):
    """Return the gradient of some candidates, or drawn from `noise`."""
    if noise is not None:
        return {k: torch.randn(v.shape, generator=noise) for k, v in SENT.items()}
    return plain_gradient(MODEL, CANDIDATES.inputs[rows], CANDIDATES.labels[rows])


shared_trial = lru_cache(maxsize=None)(trial)  # of all attacks, which leave their views alone


def gains(attack, **options) -> Iterator[float]:
    """Yield value − blind, trial after trial."""
    family = FAMILIES[attack.family]
    for seed in count():
        view, truth = shared_trial(seed, **options)
        guess = attack.infer(view, AUXILIARY, generator(seed, "infer"))
        blind = family.blind(view, AUXILIARY, generator(seed, "blind"))
        main = "accuracy" if "accuracy" in family.metrics else family.metrics[0]
        yield family.grade(guess, truth)[main] - family.grade(blind, truth)[main]


@pytest.mark.slow
@attacks()
def test_it_beats_the_blind_guess_on_a_plain_gradient_unless_it_does_not_look(attack):
    if attack.baseline or attack.name in WITHOUT_SIGNAL:
        assert not has_advantage(gains(attack))
    else:
        assert is_better(gains(attack))


@pytest.mark.slow
@attacks()
@pytest.mark.parametrize("size", [1, 9])  # odd: no share lies between two of the rules'
def test_it_has_no_advantage_on_noise(attack, size):
    assert not has_advantage(gains(attack, independent=True, size=size))


@attacks()
def test_the_same_seed_gives_the_same_answer_and_the_view_is_left_alone(attack):
    view, _ = trial(3, size=5)
    before = {name: value.clone() for name, value in view.latest.update.delta.items()}
    first, second = (attack.infer(view, AUXILIARY, generator(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert same_params(view.latest.update.delta, before)


@attacks("label")
@sizes(1, 2, 17)
def test_counts_have_the_right_shape(attack, size):
    view, truth = trial(0, size=size)
    guess = attack.infer(view, AUXILIARY, generator(0))
    assert guess.shape == (NUM_CLASSES,)
    assert guess.dtype == torch.int64
    assert int(guess.min()) >= 0
    assert int(guess.sum()) == size
    assert set(FAMILIES[attack.family].grade(guess, truth)) == set(FAMILIES[attack.family].metrics)


@attacks("membership", "range", "source", "attribute")
@sizes(1, 2, 17)
def test_there_is_a_score_per_candidate(attack, size):
    view, truth = trial(0, size=size)
    guess = attack.infer(view, AUXILIARY, generator(0))
    assert guess.shape == CANDIDATES.labels.shape
    assert guess.dtype == torch.float64
    assert bool(torch.isfinite(guess).all())
    assert set(FAMILIES[attack.family].grade(guess, truth)) == set(FAMILIES[attack.family].metrics)


@attacks(*SECRETS)
def test_classes_have_log_probabilities(attack):
    view, truth = trial(0, size=2)
    guess = attack.infer(view, AUXILIARY, generator(0))
    assert guess.shape == (2,)
    assert float(guess.exp().sum()) == pytest.approx(1.0)
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


PIXELS = (1, 6, 6)
PICTURES = torch.rand(40, *PIXELS, generator=generator(0, "pictures"))
with global_stream(0, "flat"):
    FLAT = nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 5))
FLAT_SENT = {name: value.clone() for name, value in FLAT.state_dict().items()}
KNOWS = Auxiliary(FLAT, 5, inputs=PICTURES[10:], labels=torch.arange(30) % 5)


def reconstructed(attack, view, seed):
    """Return an attack's answer after a few steps, where it takes steps."""
    few = {"iterations": 60, "restarts": 1, "steps": 8}
    options = {name: few[name] for name in set(few) & set(options_of(attack.infer))}
    return attack.infer(view, KNOWS, generator(seed), **options)


def picture(place):
    """Return the view of a client with one picture."""
    label = torch.tensor([place % 5])
    gradient = plain_gradient(FLAT, PICTURES[place : place + 1], label)
    return observe(gradient, 1, sent=FLAT_SENT)


@attacks("reconstruction")
def test_a_picture_comes_nearer_than_the_mean_one(attack):
    mean, gains = PICTURES[10:].mean(dim=0), []
    for place in range(2):
        guess = reconstructed(attack, picture(place), place)
        assert guess.shape == (1, *PIXELS)
        assert guess.is_floating_point()
        true = PICTURES[place]
        gains.append(float((mean - true).norm() / (guess[0] - true).norm()))
    assert max(gains) > 1.2


@attacks("reconstruction")
def test_a_picture_is_a_function_of_what_was_seen(attack):
    view = picture(1)
    before = {name: value.clone() for name, value in view.latest.update.delta.items()}
    first, second = (reconstructed(attack, view, 1) for _ in range(2))
    assert torch.equal(first, second)
    assert same_params(view.latest.update.delta, before)


@attacks("reconstruction")
def test_noise_in_place_of_an_update_gives_no_picture(attack):
    stream, family, gains = generator(0, "noise"), FAMILIES["reconstruction"], []
    for place in range(2):
        noise = {k: torch.randn(v.shape, generator=stream) for k, v in FLAT_SENT.items()}
        view = observe(noise, 1, sent=FLAT_SENT)
        try:
            guess = family.check(reconstructed(attack, view, place), KNOWS)
        except ValueError:  # refuses what cannot be
            continue
        blind = PICTURES[10:].mean(dim=0)
        far = (guess[:1].clamp(0, 1) - PICTURES[place]).norm()
        gains.append(float((blind - PICTURES[place]).norm() / far))
    assert not gains or max(gains) < 1.2
