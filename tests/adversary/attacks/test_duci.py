import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.duci import debiased, duci, rates
from adversary.grading import usage
from adversary.grading.families import FAMILIES
from adversary.members.calibration import Calibration
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Sets, Truth, View
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
    threshold, fpr, tpr = rates(rehearsed(scores, members))
    assert (fpr, tpr) == (0.0, 0.75)  # 9, 8, 7; the next, 5, is a member's and another's
    assert 5 < threshold < 7


def test_equal_scores_are_not_split():
    scores = torch.ones(2, 4)
    members = torch.tensor([[True, True, False, False]] * 2)
    with pytest.raises(NotApplicable, match="score: must tell members of rehearsed clients"):
        rates(rehearsed(scores, members))


@pytest.mark.parametrize(("used", "fpr", "tpr"), [(10, 0.2, 0.7), (50, 0.1, 0.6), (90, 0.3, 0.9)])
def test_a_count_is_right_on_average(used, fpr, tpr):
    stream = generator(0, "counts", used)
    coins = torch.rand(2000, 200, generator=stream)
    member = torch.arange(200) < used
    named = coins < torch.where(member, tpr, fpr)
    counts = torch.stack([debiased(row, fpr, tpr) for row in named])
    variance = (used * tpr * (1 - tpr) + (200 - used) * fpr * (1 - fpr)) / (tpr - fpr) ** 2
    assert float(counts.mean()) == pytest.approx(used, abs=0.5 + 4 * (variance / 2000) ** 0.5)
    assert float(named.sum(1).double().mean()) != pytest.approx(used, abs=3)  # as it would be plain


def test_a_count_stays_within_the_set():
    named = torch.zeros(10, dtype=torch.bool)
    assert debiased(named, 0.2, 0.7).tolist() == [0.0]
    assert debiased(~named, 0.2, 0.7).tolist() == [10.0]


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
