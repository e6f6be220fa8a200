import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from adversary.attacks.duci import (
    Named,
    _likelihood,
    _prior,
    as_in_cohort,
    duci,
    expected,
    rates,
    threshold,
)
from adversary.grading import usage
from adversary.grading.families import FAMILIES
from adversary.members.calibration import Calibration
from adversary.members.shadows import shadows
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Sets, View
from tests.adversary import member_cases as cases
from tests.adversary.games.game_cases import rotation
from tests.adversary.label_cases import client

SCORES = pytest.mark.parametrize("score", ["rmia", "cosine"])
KNOWN = replace(
    cases.KNOWN,
    sets=Sets(cases.RECORDS[:40], cases.LABELS[:40], {"0": torch.arange(40)}, {"0": 20.0}),
)


def view_of(known=cases.MODEL, rows=slice(0, 16), local=cases.WEIGHTS):
    return client(known, cases.RECORDS[rows], cases.LABELS[rows], local)


def rehearsed(scores, members):
    """Calibration with these scores and members, of two clients."""
    none = torch.zeros(2, 0)
    return Calibration("rmia", cases.KNOWN, none, none.bool(), 1.0, scores.double(), members)


@SCORES
@pytest.mark.parametrize("used", [0, 1, 7, 40])
def test_of_a_model_that_memorises_the_number_is_exact(score, used):
    """Records that share no parameter: training on one moves no other."""
    model = nn.Linear(240, 2, bias=False)
    nn.init.zeros_(model.weight)
    records, labels = torch.eye(240), torch.arange(240) % 2
    sets = Sets(records[:40], labels[:40], {"client": torch.arange(40)}, {"client": 20.0})
    auxiliary = Auxiliary(model, 2, inputs=records[80:], labels=labels[80:], sets=sets)
    rows = torch.cat([torch.arange(used), torch.arange(40, 80)[: 40 - used]])
    view = client(model, records[rows], labels[rows], cases.WEIGHTS)
    name = view.latest.update.client
    known = replace(auxiliary, sets=replace(sets, rows={name: torch.arange(40)}))
    assert duci(view, known, generator(0), score=score).tolist() == pytest.approx([used], abs=1e-9)


@SCORES
def test_a_rotation_that_the_adversary_knows_hides_no_number(score):
    model = nn.Linear(240, 2, bias=False)
    nn.init.zeros_(model.weight)
    records, labels, turn = torch.eye(240), torch.arange(240) % 2, rotation()
    rows = torch.cat([torch.arange(7), torch.arange(40, 73)])
    latest = client(model, records[rows], labels[rows], cases.WEIGHTS).latest
    update = replace(latest.update, delta=turn.apply(latest.update.delta, {}, generator(0))[0])
    view = View([replace(latest, update=update)])
    sets = Sets(records[:40], labels[:40], {update.client: torch.arange(40)}, {update.client: 20.0})
    static = Auxiliary(model, 2, inputs=records[80:], labels=labels[80:], sets=sets)
    knowing = replace(static, defense=turn)
    assert duci(view, knowing, generator(0), score=score).tolist() == pytest.approx([7], abs=1e-6)
    assert float(duci(view, static, generator(0), score=score)) < 5


def test_a_client_that_used_none_of_the_set_is_not_counted_high():
    counts = []
    for seed in range(4):
        view = cases.round_of(seed, cases.WEIGHTS, clients=1)[0][0]
        name = view.latest.update.client
        sets = Sets(
            cases.RECORDS[300:], cases.LABELS[300:], {name: torch.arange(100)}, {name: 50.0}
        )
        inputs, labels = cases.RECORDS[100:300], cases.LABELS[100:300]
        known = replace(cases.KNOWN, inputs=inputs, labels=labels, sets=sets)
        counts.append(float(duci(view, known, generator(0), score="cosine")))
    assert sum(counts) / 4 < 40


def test_the_threshold_has_the_largest_difference_of_the_rates():
    scores = torch.tensor([[9.0, 5, 5, 1], [8, 7, 2, 0]])
    members = torch.tensor([[True, True, False, False], [True, True, False, False]])
    cut = threshold(rehearsed(scores, members))
    assert 5 < cut < 7  # 9, 8, 7; the next, 5, is a member's and another's
    fpr, tpr = rates(rehearsed(scores, members), cut)
    assert (fpr.tolist(), tpr.tolist()) == ([0.0, 0.0], [0.5, 1.0])


def test_equal_scores_are_not_split_and_say_nothing():
    scores = torch.ones(2, 4)
    of = rehearsed(scores, torch.tensor([[True, True, False, False]] * 2))
    fpr, tpr = rates(of, threshold(of))
    assert torch.equal(fpr, tpr)
    assert expected(7, 20, 5.0, fpr, tpr).tolist() == pytest.approx([5.0])


def by_hand(named, size, fpr, tpr):
    """P(k | n) for every n, by convolution."""
    return torch.tensor([
        np.convolve(binom.pmf(range(n + 1), n, tpr), binom.pmf(range(size - n + 1), size - n, fpr))[
            named
        ]
        for n in range(size + 1)
    ])  # fmt: skip


@pytest.mark.twin
@pytest.mark.parametrize(("named", "fpr", "tpr"), [(0, 0.2, 0.7), (9, 0.0, 0.6), (12, 0.3, 1.0)])
def test_the_likelihood_of_a_number_is_that_of_two_binomials(named, fpr, tpr):
    found = _likelihood(named, 12, torch.tensor([fpr]), torch.tensor([tpr]))
    torch.testing.assert_close(found, by_hand(named, 12, fpr, tpr), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mean", [0.0, 2.5, 25.0, 40.0, 50.0])
def test_beforehand_the_mean_is_the_blind_guess(mean):
    counts = torch.arange(51.0, dtype=torch.float64)
    assert float(_prior(50, mean) @ counts) == pytest.approx(mean, abs=1e-6)
    nothing = torch.full((3,), 0.3)
    for named in (0, 20, 50):
        answer = expected(named, 50, mean, nothing, nothing)
        assert answer.tolist() == pytest.approx([mean], abs=1e-6)


@pytest.mark.parametrize(("fpr", "tpr"), [(0.3, 0.3), (0.25, 0.5), (0.05, 0.8), (0.0, 1.0)])
def test_a_count_errs_less_than_the_blind_guess_the_more_the_score_tells(fpr, tpr):
    stream, prior = generator(0, "counts", fpr, tpr), _prior(50, 12.5)
    used = torch.multinomial(prior, 400, True, generator=stream)
    chances = torch.where(torch.arange(50) < used[:, None], tpr, fpr)
    named = (torch.rand(400, 50, generator=stream) < chances).sum(dim=1)
    answer = torch.cat([
        expected(int(k), 50, 12.5, torch.tensor([fpr]), torch.tensor([tpr])) for k in named
    ])  # fmt: skip
    squares = [float((guess - used).square().mean()) for guess in (answer, torch.tensor(12.5))]
    # Var(n̂) of the paper's estimate, and of the number beforehand: no worse than either.
    apart = (50 * fpr * (1 - fpr) + 12.5 * (tpr - fpr)) / (tpr - fpr) ** 2 if tpr > fpr else 1e9
    assert squares[0] <= 1.15 * min(apart, squares[1]) + 1e-6
    assert float((answer - used).mean()) == pytest.approx(
        0.0, abs=3.5 * (squares[0] / 400) ** 0.5 + 1e-9
    )


def test_clients_of_other_rates_make_a_count_less_sure():
    rated = torch.tensor([0.1, 0.1]), torch.tensor([0.3, 0.9])
    between = expected(15, 50, 12.5, *rated)
    low, high = (expected(15, 50, 12.5, rated[0][k : k + 1], rated[1][k : k + 1]) for k in (1, 0))
    assert float(low) < float(between) < float(high)


def test_a_client_without_a_set_is_refused_by_name():
    none = replace(KNOWN, sets=replace(KNOWN.sets, rows={}))
    with pytest.raises(NotApplicable, match="sets: must have one for client .*, got none"):
        duci(view_of(), none, generator(0))


def test_errors_are_graded_by_size_and_by_the_true_number():
    truth = Truth(torch.zeros(1), torch.zeros(1), in_set=torch.arange(20) < 5)
    assert usage.grade(torch.tensor([7.0]), truth) == pytest.approx(
        {"absolute_accuracy": 0.9, "relative_accuracy": 0.6}
    )
    assert usage.grade(torch.tensor([5.0]), truth) == dict.fromkeys(usage.METRICS, 1.0)
    none = replace(truth, in_set=torch.zeros(20, dtype=torch.bool))
    graded = usage.grade(torch.tensor([2.0]), none)
    assert graded["absolute_accuracy"] == pytest.approx(0.9)
    assert math.isnan(graded["relative_accuracy"])
    pooled = usage.pool([torch.tensor([7.0]), torch.tensor([2.0])], [truth, none])
    assert pooled == pytest.approx({"relative_accuracy": 1 - 4 / 5})


def test_the_blind_guess_is_what_such_sets_hold_on_average():
    latest = view_of().latest
    named = replace(
        view_of(), observations=[replace(latest, update=replace(latest.update, client="0"))]
    )
    assert FAMILIES["usage"].blind(named, KNOWN, generator(0)).tolist() == [20.0]


def named_of(counts, *, mean=25.0, size=50):
    return [Named(k, size, mean, torch.tensor([0.2]), torch.tensor([0.8])) for k in counts]


def test_the_rates_are_such_that_the_round_s_clients_use_what_is_expected():
    fpr, tpr = torch.tensor([0.1, 0.3]), torch.tensor([0.7, 0.9])
    right = int(50 * 0.2 + 25 * 0.6)
    for given, factor in (([right] * 40, 1.0), ([10] * 40, 0.0), ([17] * 40, 7 / 15)):
        _, found = as_in_cohort(fpr, tpr, named_of(given))
        torch.testing.assert_close(found - fpr, factor * (tpr - fpr), rtol=0, atol=0.09)
    assert as_in_cohort(fpr, tpr, [])[1] is tpr
    one = as_in_cohort(fpr, tpr, named_of([10], mean=2.0))[1]  # one client says little
    torch.testing.assert_close(one, tpr, rtol=0, atol=0.05)


def test_auxiliary_data_of_one_record_is_one_clear_error():
    one = replace(KNOWN, inputs=KNOWN.inputs[:1], labels=KNOWN.labels[:1])
    with pytest.raises(NotApplicable, match="auxiliary: must have at least 2 records, got 1"):
        shadows(workspace(view_of(), one), 16)
