import itertools
import math
from pathlib import Path

import pytest
import torch

from adversary.attack import Attack
from adversary.grading import answers, leakage
from adversary.grading.families import FAMILIES
from adversary.grading.images import psnr
from adversary.grading.reconstructions import METRICS, blank, bounds, chance, paired
from fedsim.config import Config, Grading
from fedsim.core.ground_truth import Lineup, Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary
from fedsim.data import federate
from fedsim.data.digits import digits
from fedsim.run.originals import Originals
from tests.builders import bilinear, observe, plain_gradient

FAMILY = FAMILIES["reconstruction"]
IMAGES = digits(Path()).inputs
MODEL = bilinear(3)


def truth_of(examples, rows, others, *, held_out=slice(0)):
    """Return the truth of a client that used `rows`, among `others`."""
    rows, others = (torch.as_tensor(found, dtype=torch.long) for found in (rows, others))
    picture = blank(examples[held_out], tuple(examples.shape[1:]))
    low, high = bounds(examples)
    lineup = Lineup(examples=examples, others=others, blank=picture, low=low, high=high)
    return Truth(rows * 0, rows, inputs=examples[rows], lineup=lineup)


def drawn(trial, count, others=99):
    """Return the truth of a client with digits at random, and the rows that nobody has."""
    rows = torch.randperm(len(IMAGES), generator=generator(trial, "rows"))
    truth = truth_of(IMAGES, rows[:count], rows[count : count + others])
    return truth, rows[count + others :]


def noise(like, scale, name="noise"):
    return scale * torch.randn(like.shape, generator=generator(0, name))


def test_psnr_is_the_mean_over_examples_in_any_order():
    truth, _ = drawn(0, 6)
    guess = truth.inputs + noise(truth.inputs, 0.1)
    expected = psnr(guess.clamp(0, 1), truth.inputs, 1.0)
    for order in (range(6), [3, 5, 0, 1, 4, 2]):
        grades = FAMILY.grade(guess[list(order)], truth)
        assert set(grades) == {*METRICS, "feature_similarity"}
        assert grades["psnr"] == pytest.approx(float(expected.mean()))
        assert grades["best_psnr"] == pytest.approx(float(expected.max()))
        assert grades["match_rate"] == 1.0
        assert 0.5 < grades["ssim"] < 1
    exact = FAMILY.grade(truth.inputs.flip(0), truth)
    assert (exact["psnr"], exact["ssim"], exact["match_rate"]) == (350.0, 1.0, 1.0)


def test_guesses_go_where_the_sum_of_squared_errors_is_least():
    truth, left = drawn(1, 4)
    guess = IMAGES[left[:4]].double()
    error = lambda found: float((found - truth.inputs).square().sum())
    best = min(error(guess[list(order)]) for order in itertools.permutations(range(4)))
    assert error(paired(guess, truth)) == pytest.approx(best)


def test_a_guess_that_is_nearly_exact_is_not_mistaken_for_one_that_is_less_so():
    truth, _ = drawn(2, 2)
    near = truth.inputs[:1].double() * 0.5 + 0.25
    near = truth_of(torch.cat([near, near + 1e-9]), [0, 1], [])
    found = paired(near.inputs.flip(0) + 1e-15, near)
    assert float((found - near.inputs).abs().max()) < 1e-14


def test_more_guesses_buy_nothing_and_lacking_ones_are_the_blind_picture():
    truth, left = drawn(3, 3)
    first = truth.inputs + noise(truth.inputs, 0.3)
    more = torch.cat([first, truth.inputs, IMAGES[left]])
    assert FAMILY.grade(more, truth) == FAMILY.grade(first, truth)
    none = FAMILY.grade(IMAGES[:0], truth)
    assert none == FAMILY.grade(truth.lineup.blank.expand(3, 1, 8, 8), truth)
    blind = psnr(torch.full_like(truth.inputs, 0.5), truth.inputs, 1.0)
    assert none["psnr"] == pytest.approx(float(blind.mean()))
    one = FAMILY.grade(truth.inputs[1:2], truth)
    assert one["psnr"] == pytest.approx((350 + float(blind[0] + blind[2])) / 3)


def test_values_beyond_the_datas_range_are_clipped():
    truth = truth_of(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4), [0, 1], [])
    guess = torch.tensor([-5.0, 9.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    assert FAMILY.grade(guess, truth)["psnr"] == 350.0
    bytes_ = truth_of(255 * IMAGES[:5], [0, 1], [])
    assert FAMILY.grade(bytes_.inputs + 25.5, bytes_)["psnr"] > 20  # clipped at 255
    assert float(bytes_.lineup.high.max()) == 255


def test_each_feature_of_a_table_has_its_own_range():
    table = torch.rand(40, 3, generator=generator(0, "table")) * torch.tensor([1.0, 100.0, 0.0])
    span = table.amax(dim=0) - table.amin(dim=0)
    middle = table[:2].clone()
    middle[:] = table.amin(dim=0) + span / 2
    truth = truth_of(torch.cat([table, middle[:1]]), [40], range(40))
    guess = truth.inputs + 0.1 * span
    grades = FAMILY.grade(guess, truth)
    assert grades["psnr"] == pytest.approx(20.0, abs=1e-4)
    assert math.isnan(grades["ssim"])
    assert FAMILY.grade(table[:1], truth_of(table, [0], range(1, 40)))["match_rate"] == 1.0


def test_copies_with_noise_are_identified_and_so_are_pale_ones():
    truth, _ = drawn(4, 40, others=1000)
    pale = 0.4 + 0.2 * truth.inputs
    for guess in (truth.inputs + noise(truth.inputs, 0.1), pale + noise(pale, 0.01)):
        assert FAMILY.grade(guess.flip(0), truth)["match_rate"] >= 0.95
    assert FAMILY.grade(truth.inputs[:10], truth)["match_rate"] == pytest.approx(0.25, abs=0.1)


def test_whoever_mixes_in_the_blind_picture_is_identified_all_the_same():
    rows = torch.randperm(len(IMAGES), generator=generator(6, "rows"))
    examples = IMAGES[rows]
    truth = truth_of(examples, range(40), range(40, 240), held_out=slice(240, 640))
    mean, noisy = truth.lineup.blank, (truth.inputs + noise(truth.inputs, 0.4)).clamp(0, 1)
    near = mean + 0.01 * (noisy.double() - mean)
    before, after = (FAMILY.grade(guess, truth)["match_rate"] for guess in (noisy, near))
    assert after == pytest.approx(before, abs=0.06)
    assert after > 0.6
    others = mean + 0.01 * (examples[700:740].double() - mean)
    assert FAMILY.grade(others, truth)["match_rate"] == pytest.approx(40 / 240, abs=0.24)
    alone = [truth_of(examples, [it], range(40, 240), held_out=slice(240, 640)) for it in range(40)]
    assert sum(FAMILY.grade(mean[None], it)["match_rate"] for it in alone) <= 5


def rates(answer, count, others, trials):
    """Return mean match rate, and its standard error, of answers that know nothing."""
    found = []
    for trial in range(trials):
        truth, left = drawn(trial, count, others)
        guess = answer(truth, IMAGES[left], generator(trial, "guess"))
        found.append(FAMILY.grade(guess, truth)["match_rate"])
    values = torch.tensor(found)
    return float(values.mean()), float(values.std()) / math.sqrt(trials)


@pytest.mark.parametrize(("count", "others", "trials"), [(1, 9, 120), (5, 20, 50)])
@pytest.mark.parametrize(
    "answer",
    [
        lambda truth, others, stream: truth.lineup.blank.expand(len(truth.inputs), 1, 8, 8),
        lambda truth, others, stream: others[: len(truth.inputs)],
        lambda truth, others, stream: torch.rand(truth.inputs.shape, generator=stream),
    ],
    ids=["blind", "other-images", "noise"],
)
def test_who_knows_nothing_identifies_as_much_as_chance(answer, count, others, trials):
    mean, error = rates(answer, count, others, trials)
    assert abs(mean - count / (count + others)) < 4 * error


def test_auxiliary_images_that_are_in_the_pool_identify_nobody():
    truth, _ = drawn(5, 20, others=200)
    guess = IMAGES[truth.lineup.others[:20]]
    assert FAMILY.grade(guess, truth)["match_rate"] == 0.0


def test_of_copies_in_the_pool_none_is_preferred():
    examples = IMAGES[:1].repeat(10, 1, 1, 1)
    truths = [truth_of(examples, [0], range(1, n)) for n in range(2, 10)]
    found = [FAMILY.grade(examples[:1], truth)["match_rate"] for truth in truths]
    assert 0 < sum(found) < len(found)


def test_without_others_nothing_can_be_told_apart():
    grades = FAMILY.grade(IMAGES[:2], truth_of(IMAGES[:2], [0, 1], []))
    assert math.isnan(grades["match_rate"])
    assert grades["psnr"] == 350.0
    unknown = FAMILY.grade(IMAGES[:2], Truth(torch.zeros(2).long(), torch.arange(2)))
    assert all(math.isnan(value) for value in unknown.values())


def test_a_pooled_row_is_the_mean_over_all_examples():
    (few, _), (many, _) = drawn(6, 2), drawn(7, 6)
    guesses = [few.inputs + noise(few.inputs, 0.2), many.inputs + noise(many.inputs, 0.1)]
    one, two = (FAMILY.grade(g, t) for g, t in zip(guesses, (few, many), strict=True))
    both = FAMILY.pool(guesses, [few, many])
    assert set(both) == {*FAMILY.pooled, "feature_similarity"}
    for metric in ("psnr", "ssim", "match_rate", "feature_similarity"):
        assert both[metric] == pytest.approx((2 * one[metric] + 6 * two[metric]) / 8)
    assert both["best_psnr"] == max(one["best_psnr"], two["best_psnr"])
    most = FAMILY.ceiling([few])
    assert (most["ssim"], most["match_rate"], most["feature_similarity"]) == (1.0, 1.0, 1.0)


def test_the_blind_match_rate_is_chance():
    (few, _), (many, _) = drawn(6, 2, others=8), drawn(7, 6, others=54)
    assert (chance(few), chance(many)) == (0.2, 0.1)
    guesses = [truth.lineup.blank.expand(3, 1, 8, 8) for truth in (few, many)]
    graded = FAMILY.grade_blind(guesses, [few, many])
    assert graded["match_rate"] == pytest.approx((2 * 0.2 + 6 * 0.1) / 8)
    assert {**graded, "match_rate": 0} == {**FAMILY.pool(guesses, [few, many]), "match_rate": 0}
    alone = truth_of(IMAGES[:2], [0, 1], [])
    assert math.isnan(FAMILY.grade_blind(guesses[:1], [alone])["match_rate"])


@pytest.mark.parametrize("candidates", [2, 10, 100])
def test_the_size_of_the_line_up_is_an_option(candidates):
    federated = federate(Config.model_validate({"data": {"limit": 400}}))
    originals = Originals(federated, 0, Grading(candidates=candidates))
    truth = Truth(torch.zeros(2).long(), torch.tensor([3, 7]))
    truths = [originals.of(truth, round_=1, client="0") for _ in range(2)]
    assert truths[0].inputs.shape[0] == 2
    assert chance(truths[0]) == pytest.approx(1 / candidates)
    assert torch.equal(truths[0].lineup.others, truths[1].lineup.others)


def view_of(size):
    return observe(plain_gradient(MODEL, torch.rand(2, 4), torch.tensor([0, 1])), size)


def test_the_blind_picture_is_the_mean_auxiliary_one_or_grey():
    known = Auxiliary(
        MODEL, 10, inputs=IMAGES[:50], labels=torch.zeros(50).long(), input_shape=(1, 8, 8)
    )
    found = FAMILY.blind(view_of(3), known, generator(0))
    assert found.shape == (3, 1, 8, 8)
    torch.testing.assert_close(found[2].float(), IMAGES[:50].mean(dim=0))
    grey = FAMILY.blind(view_of(None), Auxiliary(MODEL, 10, input_shape=(1, 8, 8)), generator(0))
    assert torch.equal(grey, torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64))
    table = FAMILY.blind(view_of(2), Auxiliary(MODEL, 10, input_shape=(4,)), generator(0))
    assert torch.equal(table, torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("guess", "sentence"),
    [
        (torch.tensor([[0.0, math.nan, 1.0, math.inf]]), "must be finite, got 2 of 4 values"),
        (torch.zeros(3, 5), r"must have the shape \(n, 4\), got \(3, 5\)"),
        (torch.zeros(4), r"must have the shape \(n, 4\), got \(4,\)"),
        (torch.zeros(1, 4).long(), "must be a tensor of floats, got torch.int64"),
        ([0.5], "must be a tensor of floats, got list"),
    ],
)
def test_an_answer_that_is_no_set_of_inputs_is_a_row_with_its_reason(guess, sentence):
    attack = Attack(name="odd", family="reconstruction", infer=lambda *_: guess)
    fine = Attack(
        name="fine", family="reconstruction", infer=lambda *_: torch.rand(1, 4).requires_grad_()
    )
    known = Auxiliary(MODEL, 3, input_shape=(4,))
    odd, other = answers.attack_view(view_of(1), [attack, fine], known, seed=0)
    table = torch.rand(20, 4, generator=generator(0, "table"))
    truth = truth_of(table, [0], range(1, 20))
    rows, failure = leakage.grade(odd, truth)
    assert (failure.attack, failure.kind) == ("odd", "failed")
    with pytest.raises(AssertionError, match="^guess: " + sentence):
        raise AssertionError(failure.reason)
    assert [row.value for row in rows] == [None] * 4
    assert rows[0].blind is not None
    assert not other.guess.requires_grad
    assert leakage.grade(other, truth)[0][0].value is not None
