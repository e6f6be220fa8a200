import math

import pytest
import torch
from scipy.stats import binom

from adversary.counts import expected_overlap
from adversary.families import FAMILIES
from fedsim.rng import generator
from fedsim.types import Auxiliary, LocalTraining, Truth
from tests.builders import bilinear, observe, plain_gradient

LABEL = FAMILIES["label"]
MODEL = bilinear(3)


def truth(*labels):
    return Truth(torch.tensor(labels), torch.zeros(len(labels), dtype=torch.long))


@pytest.mark.parametrize(
    ("guess", "asr", "exact"),
    [([2, 1, 1], 1.0, 1.0), ([4, 0, 0], 0.5, 0.0), ([0, 2, 2], 0.5, 0.0), ([4, 2, 2], 1.0, 0.0)],
)
def test_asr_is_the_share_of_labels_named(guess, asr, exact):
    grades = LABEL.grade(torch.tensor(guess), truth(0, 0, 1, 2))
    assert (grades["asr"], grades["exact"]) == (asr, exact)
    assert set(LABEL.metrics) == set(grades)


def view_of(size, epochs=1):
    gradient = plain_gradient(MODEL, torch.rand(2, 4), torch.tensor([0, 1]))
    return observe(
        gradient, size, local=LocalTraining(lr=0.1, batch_size=2, epochs=epochs, upload="gradient")
    )


def test_blind_is_the_auxiliary_prior_or_even():
    even = LABEL.blind(view_of(9), Auxiliary(MODEL, 3), generator(0))
    assert even.tolist() == [3, 3, 3]
    prior = Auxiliary(MODEL, 3, labels=torch.tensor([0, 0, 0, 2]))
    assert LABEL.blind(view_of(4, epochs=2), prior, generator(0)).tolist() == [6, 0, 2]


def test_blind_does_not_look_at_the_update():
    one = LABEL.blind(view_of(7), Auxiliary(MODEL, 3), generator(3))
    gradient = {name: value * 100 - 7 for name, value in view_of(7).latest.update.delta.items()}
    other = LABEL.blind(observe(gradient, 7), Auxiliary(MODEL, 3), generator(3))
    assert torch.equal(one, other)


def test_blind_reaches_the_closed_form_of_the_uniform_guess():
    # papers/label.md: uniform guess, IID labels, C = 10: 12.3 %, 34.2 %, 58.2 % at B = 1, 4, 8.
    for size, expected in ((1, 0.1), (4, 0.342), (8, 0.582)):
        rates = []
        for trial in range(600):
            labels = torch.randint(10, (size,), generator=generator(trial, "labels"))
            guess = LABEL.blind(view_of(size), Auxiliary(MODEL, 10), generator(trial, "blind"))
            rates.append(LABEL.grade(guess, Truth(labels, labels))["asr"])
        assert sum(rates) / len(rates) == pytest.approx(expected, abs=0.04)


def test_skill_is_zero_at_chance_and_one_when_all_is_right():
    # Two labels of three classes: E min(1, K) + E min(1, K) = 2·(1 − (2/3)²), of two labels.
    chance = 5 / 9
    skill = lambda *guess: LABEL.grade(torch.tensor(guess), truth(0, 1))["skill"]
    assert skill(1, 1, 0) == 1.0
    assert skill(1, 0, 1) == pytest.approx((0.5 - chance) / (1 - chance))
    assert skill(0, 0, 2) == pytest.approx((0 - chance) / (1 - chance))
    # A single class: whatever is named is right, and proves nothing.
    assert LABEL.grade(torch.tensor([3]), truth(0, 0, 0))["skill"] == 0.0


@pytest.mark.parametrize(
    ("guess", "precision", "recall"),
    [
        ([3, 1, 0, 0], 1.0, 2 / 3),
        ([1, 1, 1, 1], 3 / 4, 1.0),
        ([0, 0, 0, 4], 0.0, 0.0),
        ([0, 2, 0, 2], 1 / 2, 1 / 3),
    ],
)
def test_precision_and_recall_are_of_the_classes_named_present(guess, precision, recall):
    grades = LABEL.grade(torch.tensor(guess), truth(0, 0, 1, 2))
    assert (grades["precision"], grades["recall"]) == pytest.approx((precision, recall))


@pytest.mark.parametrize(
    ("guess", "asr"),
    [([500, 250, 250], 1.0), ([1000, 0, 0], 0.5), ([250, 250, 500], 0.75), ([2, 1, 0], 0.75)],
)
def test_where_the_number_was_not_told_proportions_are_compared(guess, asr):
    grades = LABEL.grade(torch.tensor(guess), truth(0, 0, 1, 2))
    assert grades["asr"] == pytest.approx(asr)
    assert grades["exact"] == 0.0
    shares = torch.tensor(guess) / sum(guess)
    assert LABEL.grade(shares, truth(0, 0, 1, 2))["asr"] == pytest.approx(asr)


# papers/label.md, section 4: of batches of 1, 2, … 128 labels of ten classes.
CHANCE = {
    "iid": [0.1, 0.1846, 0.3048, 0.4573, 0.5921, 0.7022, 0.7883, 0.8514],
    "unb": [0.1, 0.1823, 0.2549, 0.3037, 0.3580, 0.3867, 0.3939, 0.3987],
}


@pytest.mark.parametrize("kind", CHANCE)
@pytest.mark.parametrize("power", range(8))
def test_the_chance_level_is_that_of_the_closed_form(kind, power):
    size = 2**power
    certain = [size // 2, size // 4] if kind == "unb" else [0, 0]
    rest, overlap = size - sum(certain), expected_overlap(size, 10).numpy()
    mass = lambda known: binom.pmf(range(rest + 1), rest, 0.1) @ overlap[known : known + rest + 1]
    chance = (mass(certain[0]) + mass(certain[1]) + 8 * mass(0)) / size
    # Theirs is a mean over drawn batches.
    assert chance == pytest.approx(CHANCE[kind][power], abs=0.008)


@pytest.mark.parametrize("true", [[8, 0, 0], [3, 3, 2], [1, 0, 0], [20, 4, 1]])
def test_chance_is_the_mean_rate_of_labels_drawn_evenly(true):
    labels, rates = torch.repeat_interleave(torch.arange(3), torch.tensor(true)), []
    chance = float(expected_overlap(len(labels), 3)[torch.tensor(true)].sum()) / len(labels)
    for seed in range(400):
        drawn = torch.randint(3, (len(labels),), generator=generator(seed, "chance"))
        guess = torch.bincount(drawn, minlength=3)
        rates.append(LABEL.grade(guess, Truth(labels, labels))["asr"])
    values = torch.tensor(rates)
    assert float(values.mean()) == pytest.approx(chance, abs=4 * float(values.std()) / 20 + 1e-9)


def test_a_reader_is_told_where_counts_are_proportions():
    remark = LABEL.remark
    assert remark is not None
    assert remark(view_of(4), truth(0, 0, 1, 2)) is None
    assert remark(view_of(4), None) is None
    assert remark(view_of(None), None) == (
        "num_examples: not told, so the answer is proportions (per mille)"
    )
    assert remark(view_of(4), truth(0, 1)) == (
        "num_examples: told 4 labels but used 2, so graded as proportions"
    )


def test_a_gradient_without_a_number_of_examples_is_attacked_per_mille():
    view = view_of(None)
    assert LABEL.prepare(view).latest.update.num_examples == 1000
    assert LABEL.prepare(view_of(4)).latest.update.num_examples == 4
    assert int(LABEL.blind(view, Auxiliary(MODEL, 3), generator(0)).sum()) == 1000
    # Uploaded weights have no scale without it.
    weights = observe(view.latest.update.delta, None, local=LocalTraining(0.1, 4))
    assert LABEL.prepare(weights).latest.update.num_examples is None


def test_no_grade_is_beyond_its_range():
    for seed in range(50):
        stream = generator(seed, "range")
        labels = torch.randint(4, (1 + seed % 7,), generator=stream)
        guess = torch.randint(9, (4,), generator=stream) + (torch.arange(4) == seed % 4)
        grades = LABEL.grade(guess, Truth(labels, labels))
        assert all(math.isfinite(value) and value <= 1 for value in grades.values())
        assert all(value >= 0 for name, value in grades.items() if name != "skill")
