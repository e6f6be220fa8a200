import math
from dataclasses import replace

import pytest
import torch

from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.llg import llg
from adversary.grading.families import FAMILIES
from adversary.grading.sources import blind_sources, grade_sources, pool_sources
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, View
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client

# Five candidates of classes 0, 0, 1, 1, 0. Client A used 0 and 2, client B 1 and 2, nobody 3 and 4.
CLASSES = torch.tensor([0, 0, 1, 1, 0])
USERS = torch.tensor([1, 1, 2, 0, 0])
A_USED, B_USED = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 1, 0, 0]]).bool()
A = Truth(torch.tensor([0, 1]), torch.tensor([0, 2]), A_USED, CLASSES, USERS)
B = Truth(torch.tensor([0, 1, 0]), torch.tensor([1, 2, 9]), B_USED, CLASSES, USERS)


def scores(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("a", "b", "accuracy"),
    [
        ((1, 0, 9, 9, 9), (0, 1, 0, 0, 0), 1.0),
        ((0, 1, 0, 0, 0), (1, 0, 9, 9, 9), 0.0),
        ((1, 1, 0, 0, 0), (0, 0, 0, 0, 0), 0.5),
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), 0.5),
        ((1, 2, 0, 0, 0), (0, 2, 0, 0, 0), 0.75),
    ],
)
def test_only_candidates_of_exactly_one_client_are_asked_about_and_ties_share(a, b, accuracy):
    found = pool_sources([scores(*a), scores(*b)], [A, B])
    assert found["accuracy"] == accuracy
    # B has two labels of class 0 and A one, so that B is named for both candidates.
    assert found["label_accuracy"] == 0.5


def test_clients_may_stand_in_any_order():
    guesses = [torch.rand(5, generator=generator(k, "sources")).double() for k in range(2)]
    assert pool_sources(guesses, [A, B]) == pool_sources(guesses[::-1], [B, A])


def test_a_client_without_an_answer_takes_its_candidates_along():
    c = replace(A, members=torch.tensor([0, 0, 0, 0, 1]).bool())
    users = torch.tensor([1, 1, 2, 0, 1])
    a, b, c = (replace(truth, users=users) for truth in (A, B, c))
    guesses = [scores(1, 0, 0, 0, 0), scores(0, 1, 0, 0, 0), scores(0, 0, 0, 0, 1)]
    assert pool_sources(guesses, [a, b, c])["accuracy"] == 1.0
    assert pool_sources(guesses[:2], [a, b])["accuracy"] == 1.0


@pytest.mark.parametrize(
    "truths",
    [
        [A],
        [replace(A, users=None), B],
        [replace(A, users=torch.zeros(5)), replace(B, users=torch.zeros(5))],
        [],
    ],
)
def test_where_no_source_can_be_asked_for_nothing_is_defined(truths):
    found = pool_sources([scores(1, 0, 0, 0, 0)] * len(truths), truths)
    assert all(math.isnan(value) for value in found.values())
    assert set(found) == set(FAMILIES["source"].pooled)


def test_one_client_is_graded_against_the_others_candidates_of_the_same_class():
    assert grade_sources(scores(1, 0, 0, 0, 5), A) == {"auroc": 1.0}  # the last is nobody's
    assert grade_sources(scores(0, 1, 9, 0, 0), A) == {"auroc": 0.0}
    assert grade_sources(scores(2, 2, 0, 0, 0), A) == {"auroc": 0.5}
    other_class = replace(A, classes=torch.tensor([0, 1, 1, 1, 0]))
    assert math.isnan(grade_sources(scores(1, 0, 0, 0, 0), other_class)["auroc"])
    assert math.isnan(grade_sources(scores(1, 0, 0, 0, 0), replace(A, users=None))["auroc"])


def test_the_blind_guess_is_what_a_label_attack_counts():
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16] * 0, cases.GRADIENT)
    bare = Auxiliary(cases.MODEL, 3, candidates=cases.KNOWN.candidates, input_shape=(4,))
    for known, attack in ((cases.KNOWN, eb_gls), (bare, llg)):
        counts = attack(view, known, generator(0))
        found = blind_sources(view, known, generator(0))
        assert torch.equal(found, counts[known.candidates.labels].double())
        assert counts.tolist() == [16, 0, 0]


def test_where_labels_cannot_be_read_the_blind_guess_knows_nothing():
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], LocalTraining(0.1, 8))
    latest = view.latest
    untold = View([replace(latest, update=replace(latest.update, num_examples=None))])
    assert float(blind_sources(untold, cases.KNOWN, generator(0)).abs().max()) == 0
    assert blind_sources(view, replace(cases.KNOWN, candidates=None), generator(0)).shape == (0,)


def test_within_a_class_the_blind_guess_is_even():
    views, truths = cases.round_of(0)
    for view, truth in zip(views, truths, strict=True):
        blind = blind_sources(view, cases.KNOWN, generator(0))
        assert grade_sources(blind, truth) == {"auroc": 0.5}


def test_who_knows_the_labels_names_sources_of_clients_that_differ_in_them():
    asked = torch.arange(cases.ASKED)
    views, truths = [], []
    for place in range(3):
        mine = torch.nonzero(cases.LABELS[: cases.ASKED] == place)[:16, 0]
        views.append(client(cases.MODEL, cases.RECORDS[mine], cases.LABELS[mine], cases.GRADIENT))
        members = torch.isin(asked, mine)
        truths.append(Truth(cases.LABELS[mine], mine, members, cases.LABELS[: cases.ASKED]))
    users = torch.stack([truth.members for truth in truths]).sum(dim=0)
    truths = [replace(truth, users=users) for truth in truths]
    blinds = [blind_sources(view, cases.KNOWN, generator(0)) for view in views]
    assert pool_sources(blinds, truths) == {"accuracy": 1.0, "label_accuracy": 1.0}
