import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from adversary.games.scores import (
    Measured,
    accuracy,
    advantage,
    auroc,
    information,
    macro_auroc,
    tpr_at,
)
from fedsim.core.rng import generator

LISTS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(mine for _, mine in rows) < len(rows)
)


def scored(count, shift, *names, levels=None):
    """Return scores N(±shift/2, 1), rounded where there are `levels` per unit."""
    stream = generator(0, "scores", *names)
    secret = torch.arange(count) % 2 == 1
    scores = torch.randn(count, generator=stream) + shift * (secret.float() - 0.5)
    return (scores if levels is None else (scores * levels).round() / levels), secret


@given(LISTS)
def test_auroc_is_sklearns_with_ties_and_swapped_roles_are_its_complement(rows):
    values, mine = zip(*rows, strict=True)
    scores, secret = torch.tensor(values).float(), torch.tensor(mine)
    found = auroc(scores, secret)
    assert found.value == pytest.approx(roc_auc_score(mine, values), abs=1e-12)
    assert auroc(scores, ~secret).value == pytest.approx(1 - found.value, abs=1e-12)
    assert auroc(-scores, secret).value == pytest.approx(1 - found.value, abs=1e-12)


@given(LISTS)
def test_advantage_is_the_best_point_of_sklearns_curve(rows):
    values, mine = zip(*rows, strict=True)
    false, true, _ = roc_curve(mine, values, drop_intermediate=False)
    found = advantage(torch.tensor(values).float(), torch.tensor(mine))
    assert found == pytest.approx(max(true - false), abs=1e-12)


def test_the_interval_is_a_bootstraps():
    scores, secret = scored(160, 0.8, "bootstrap", levels=2)
    found = auroc(scores, secret)
    draw = np.random.default_rng(0)
    rows = [torch.nonzero(secret == kind)[:, 0].numpy() for kind in (True, False)]
    again = []
    for _ in range(2000):
        picked = torch.from_numpy(np.concatenate([draw.choice(r, len(r)) for r in rows]))
        again.append(auroc(scores[picked], secret[picked]).value)
    low, high = np.quantile(again, [0.025, 0.975])
    # A bootstrap of 2,000 knows its ends to 5 % of the standard error, and is not symmetric.
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(again), rel=0.06)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_covers_the_truth_as_often_as_it_says(shift):
    truth, hits, repeats = norm.cdf(shift / math.sqrt(2)), 0, 600
    for k in range(repeats):
        found = auroc(*scored(200, shift, "coverage", k))
        hits += found.low <= truth <= found.high
    # 3.5 standard errors of 600 repeats, and 1 % for an interval that is right for many trials.
    assert hits / repeats == pytest.approx(0.95, abs=3.5 * math.sqrt(0.95 * 0.05 / repeats) + 0.01)


@pytest.mark.parametrize(("count", "shift"), [(12, 0.0), (12, 2.5), (25, 3.0)])
def test_the_interval_of_few_trials_covers_the_truth_too(count, shift):
    truth, hits, repeats = norm.cdf(shift / math.sqrt(2)), 0, 400
    for k in range(repeats):
        it = auroc(*scored(count, shift, "few", k))
        hits += it.low <= truth <= it.high
    assert hits / repeats >= 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / repeats) - 0.01


def test_trials_that_are_all_told_apart_have_an_interval():
    secret = torch.arange(10) < 5
    it = auroc(secret.float(), secret)
    area = it.low  # 1 − θ is z standard errors of θ, as Hanley and McNeil give them
    spread = 1 + 4 * (1 - area) / (2 - area) + 4 * area / (1 + area)
    error = math.sqrt(area * (1 - area) * spread / 25)
    assert 1 - area == pytest.approx(1.959964 * error, abs=1e-9)
    assert it.value == it.high == 1.0
    many = auroc(torch.arange(400.0), torch.arange(400) >= 200)
    assert 0.97 < many.low < many.high == 1.0
    classes = macro_auroc(torch.eye(3)[torch.arange(12) % 3], torch.arange(12) % 3)
    assert 0.5 < classes.low < classes.high == 1.0


def test_accuracy_has_wilsons_interval():
    scores = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    sure = accuracy(scores, torch.zeros(10).long())
    assert (sure.value, sure.high) == (1.0, pytest.approx(1.0))
    assert sure.low == pytest.approx(10 / (10 + 1.959964**2))
    half = accuracy(scores, torch.arange(10) % 2)
    assert (half.low, half.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_of_one_kind_of_trial_nothing_is_said():
    scores = torch.tensor([1.0, 2.0, 3.0])
    for secret in (torch.tensor([True] * 3), torch.tensor([False] * 3)):
        assert math.isnan(auroc(scores, secret).value)
        assert math.isnan(advantage(scores, secret))
        assert math.isnan(tpr_at(scores, secret, fpr=1.0))
    one = auroc(scores, torch.tensor([False, False, True]))
    assert one.value == 1.0
    assert math.isnan(one.low)
    assert math.isnan(macro_auroc(scores[:, None], torch.zeros(3, dtype=torch.int64)).value)


@pytest.mark.parametrize(
    ("negatives", "fpr", "said"),
    [(999, 0.01, False), (1000, 0.01, True), (9999, 0.001, False), (10000, 0.001, True)],
)
def test_a_tpr_of_fewer_than_ten_false_positives_is_not_told(negatives, fpr, said):
    scores = torch.randn(negatives + 50, generator=generator(0, "tpr", negatives))
    secret = torch.arange(len(scores)) < 50
    found = tpr_at(scores, secret, fpr=fpr)
    assert math.isnan(found) != said
    if said:
        edge = scores[~secret].sort(descending=True).values[10]  # the eleventh is out
        assert found == pytest.approx(float((scores[secret] > edge).double().mean()), abs=1e-12)


def test_a_tie_is_above_the_threshold_together():
    scores = torch.cat([torch.ones(20), torch.zeros(1000)])
    secret = torch.arange(1020) < 10  # ten of the ties
    assert tpr_at(scores, secret, fpr=0.01) == 1.0  # with ten false positives in 1,010
    assert tpr_at(torch.zeros(1020), secret, fpr=0.01) == 0.0
    assert advantage(torch.zeros(1020), secret) == 0.0


def test_macro_auroc_is_the_mean_of_each_class_against_the_rest():
    stream = generator(0, "macro")
    secrets = torch.arange(300) % 3
    scores = torch.randn(300, 3, generator=stream) + torch.eye(3)[secrets]
    found = macro_auroc(scores, secrets)
    each = [roc_auc_score((secrets == c).numpy(), scores[:, c].numpy()) for c in range(3)]
    assert found.value == pytest.approx(np.mean(each))
    two = torch.stack([-scores[:, 1], scores[:, 1]], dim=1)
    found, alone = macro_auroc(two, (secrets > 0).long()), auroc(scores[:, 1], secrets > 0)
    assert found.value == pytest.approx(alone.value)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=1e-3)
    assert math.isnan(macro_auroc(scores[:2], secrets[:2]).low)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_over_classes_covers_the_truth_as_often_as_it_says(shift):
    repeats, secrets, values = 600, torch.arange(150) % 3, []
    for k in range(repeats):
        scores = torch.randn(150, 3, generator=generator(0, "macro coverage", k))
        values.append(macro_auroc(scores + shift * torch.eye(3)[secrets], secrets))
    truth = norm.cdf(shift / math.sqrt(2))  # every class has the same distance from the others
    hits = sum(one.low <= truth <= one.high for one in values) / repeats
    # 3.5 standard errors of 600 repeats, and 1 % for an interval that is right for many trials.
    assert hits == pytest.approx(0.95, abs=3.5 * math.sqrt(0.95 * 0.05 / repeats) + 0.01)


def test_information_of_the_true_posterior_is_the_channels():
    secrets, p, count = torch.arange(4000) % 2, 0.1, 4000
    flipped = torch.rand(count, generator=generator(0, "channel")) < p
    seen = torch.where(flipped, 1 - secrets, secrets)
    told = torch.full((count, 2), math.log(p)).double()
    told[torch.arange(count), seen] = math.log(1 - p)
    truth = 1 + p * math.log2(p) + (1 - p) * math.log2(1 - p)
    found = information(told, secrets)
    error = (found.high - found.low) / (2 * 1.96)
    assert found.value == pytest.approx(truth, abs=3.5 * error)
    assert found.value + error * 1.95 < found.high <= 1
    over = torch.full((count, 2), math.log(0.001)).double()  # sure of itself beyond reason
    over[torch.arange(count), seen] = math.log(0.999)
    assert information(over, secrets).value < found.value
    blind = torch.full((count, 2), 0.5).double().log()
    assert information(blind, secrets).value == pytest.approx(0, abs=1e-12)
    assert information(told.flip(1), secrets).value < 0


def test_an_unknown_interval_is_none():
    assert math.isnan(Measured(0.5).low)
    alone = information(torch.zeros(1, 2).log_softmax(dim=1), torch.zeros(1).long())
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
