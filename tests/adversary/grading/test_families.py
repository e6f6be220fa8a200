import math

import pytest
import torch
from scipy.stats import binom

from adversary.grading.families import FAMILIES
from adversary.labels.counts import expected_overlap
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, LocalTraining
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


MEMBERSHIP = FAMILIES["membership"]
NONE = torch.zeros(1, dtype=torch.long)


def membership(scores, members, classes):
    told = Truth(NONE, NONE, torch.tensor(members, dtype=torch.bool), torch.tensor(classes))
    return MEMBERSHIP.grade(torch.tensor(scores, dtype=torch.float64), told)


@pytest.mark.parametrize(
    ("scores", "auroc", "advantage"),
    [
        ([9, 8, 3, 2], 1.0, 1.0),
        ([3, 2, 9, 8], 0.0, 0.0),
        ([9, 2, 3, 1], 0.75, 0.5),
        ([5, 5, 5, 5], 0.5, 0.0),
        ([5, 5, 5, 1], 0.75, 0.5),
    ],
)
def test_auroc_is_the_share_of_pairs_in_the_right_order(scores, auroc, advantage):
    grades = membership(scores, [1, 1, 0, 0], [4, 4, 4, 4])
    assert (grades["auroc"], grades["advantage"]) == (auroc, advantage)
    assert tuple(grades) == MEMBERSHIP.metrics


def test_knowing_a_clients_classes_is_no_membership():
    # Class 0 is mostly members, class 1 mostly not: its scores are all alike within a class.
    grades = membership([7, 7, 7, 2, 2, 2], [1, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1])
    assert grades == {"auroc": 0.5, "advantage": 0.0}


def test_classes_weigh_as_many_members_as_they_have_and_those_without_both_are_left_out():
    # Class 0: two members above its non-member; class 1: one below; 2 and 3 say nothing.
    scores, members = [3, 2, 1, 8, 9, 5, 6], [1, 1, 0, 1, 0, 1, 0]
    grades = membership(scores, members, [0, 0, 0, 1, 1, 2, 3])
    assert grades["auroc"] == pytest.approx((2 * 1.0 + 1 * 0.0) / 3)
    assert grades["advantage"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("members", [[0, 0, 0], [1, 1, 1], [1, 0, 0]])
def test_where_no_class_has_both_there_is_no_grade(members):
    grades = membership([1, 2, 3], members, [0, 1, 1])
    assert all(math.isnan(value) for value in grades.values())


def test_without_members_in_the_truth_there_is_no_grade():
    assert all(math.isnan(v) for v in MEMBERSHIP.grade(torch.rand(3), truth(0, 1)).values())


def by_pairs(scores, members, classes):
    """Count pairs one by one, and try every threshold on the ranks."""
    wins, ranks = [], {}
    for i, (score, one) in enumerate(zip(scores, classes, strict=True)):
        others = [s for s, m, c in zip(scores, members, classes, strict=True) if c == one and not m]
        if others and any(m and c == one for m, c in zip(members, classes, strict=True)):
            ranks[i] = sum((s < score) + (s == score) / 2 for s in others) / len(others)
            wins += [ranks[i]] if members[i] else []
    share = {c: sum(members[i] and classes[i] == c for i in ranks) for c in classes}
    best = 0.0
    for t in ranks.values():
        true = sum(bool(members[i]) and ranks[i] >= t for i in ranks) / len(wins)
        false = 0.0
        for c, count in share.items():
            out = [i for i in ranks if classes[i] == c and not members[i]]
            false += count / len(wins) * sum(ranks[i] >= t for i in out) / max(1, len(out))
        best = max(best, true - false)
    return sum(wins) / len(wins), best


@pytest.mark.parametrize("seed", range(20))
def test_grades_of_membership_equal_the_slow_count_of_pairs(seed):
    stream = generator(seed, "pairs")
    scores, classes = (torch.randint(high, (40,), generator=stream) for high in (12, 5))
    members = torch.rand(40, generator=stream) < 0.3
    grades = membership(scores.tolist(), members.tolist(), classes.tolist())
    slow = by_pairs(scores.tolist(), members.tolist(), classes.tolist())
    assert (grades["auroc"], grades["advantage"]) == pytest.approx(slow)


def test_in_one_class_it_is_the_auroc_of_scikit_learn():
    from sklearn.metrics import roc_auc_score, roc_curve

    stream = generator(0, "sklearn")
    scores = torch.randint(9, (60,), generator=stream)
    members = torch.rand(60, generator=stream) < 0.4
    grades = membership(scores.tolist(), members.tolist(), [3] * 60)
    false, true, _ = roc_curve(members, scores)
    assert grades["auroc"] == pytest.approx(roc_auc_score(members, scores))
    assert grades["advantage"] == pytest.approx((true - false).max())


def test_the_blind_guess_on_membership_is_exactly_one_half_whatever_the_labels():
    stream = generator(0, "skewed")
    classes = torch.randint(7, (90,), generator=stream)
    candidates = Candidates(torch.rand(90, 4), classes)
    guess = MEMBERSHIP.blind(view_of(4), Auxiliary(MODEL, 7, candidates=candidates), generator(0))
    members = torch.rand(90, generator=stream) < classes / 7  # the client has mostly high classes
    grades = MEMBERSHIP.grade(guess, Truth(NONE, NONE, members, classes))
    assert grades == {"auroc": 0.5, "advantage": 0.0}


def test_scores_without_meaning_have_the_advantage_that_the_docstring_tells():
    values = []
    for seed in range(300):
        stream = generator(seed, "meaningless")
        classes, members = torch.arange(400) % 10, torch.arange(400) < 20
        guess = torch.rand(400, generator=stream)
        values.append(MEMBERSHIP.grade(guess, Truth(NONE, NONE, members, classes)))
    mean = {name: sum(v[name] for v in values) / 300 for name in MEMBERSHIP.metrics}
    assert mean["auroc"] == pytest.approx(0.5, abs=0.013)  # 3.5 · (12 · 20)^−½ · 300^−½
    assert mean["advantage"] == pytest.approx(0.63 / 20**0.5, abs=0.02)
