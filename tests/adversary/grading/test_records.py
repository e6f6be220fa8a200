"""Reconstructed records, graded cell by cell by hand."""

import math
from dataclasses import replace

import pytest
import torch

from adversary.grading import records
from adversary.grading.families import FAMILIES
from adversary.grading.reconstructions import METRICS
from fedsim.core.ground_truth import Lineup, Records, Truth
from fedsim.core.memory import Memory
from fedsim.core.schema import Column, schema_of

FAMILY = FAMILIES["reconstruction"]
SCHEMA = schema_of(
    (
        Column("age", (0,), mean=40.0, deviation=10.0, whole=True),
        Column("colour", (1, 2, 3), ("red", "green", "blue"), torch.eye(3)),
    ),
    4,
)
TABLE = torch.tensor(
    [[0.0, 1, 0, 0], [1, 0, 1, 0], [-1, 0, 0, 1], [0, 0, 1, 0], [1.1, 0, 1, 0], [-1, 1, 0, 0]]
)
TOLERANCES = torch.tensor([0.25, 0.0]).double()


def truth_of(rows, auxiliary, schema=SCHEMA):
    assert SCHEMA is not None
    rows = torch.tensor(rows)
    of = Records(SCHEMA, TOLERANCES, torch.tensor(auxiliary, dtype=torch.long))
    lineup = Lineup(
        examples=TABLE,
        others=torch.arange(0),
        blank=torch.tensor([0.1, 0.2, 0.5, 0.3]),
        low=TABLE.amin(dim=0),
        high=TABLE.amax(dim=0),
        records=of if schema else None,
        memory=Memory(),
    )
    return Truth(rows * 0, rows, inputs=TABLE[rows], lineup=lineup)


def grades(guess, truth):
    return {name: FAMILY.grade(guess, truth).get(name) for name in records.METRICS}


def test_cells_are_graded_after_rounding_in_any_order():
    truth = truth_of([0, 1], [3])
    guess = torch.tensor([[0.8, 0.2, 0.4, 0.3], [0.02, 0.9, 0.1, 2.0]])
    values = grades(guess, truth)
    # (0.8, green) is record 1 with its age as near as it must be; (0, blue) has 0's age alone.
    assert values["cell_accuracy"] == 0.75
    assert values["category_accuracy"] == 0.5
    assert values["number_accuracy"] == 1.0
    assert values["record_match"] == 0.5
    # the auxiliary record (0, green) has one cell of each: the first answer has two of them
    assert values["beyond_auxiliary"] == 0.5
    assert grades(guess.flip(0), truth) == values


def test_the_blind_record_is_the_mode_and_the_mean_and_stands_for_answers_that_lack():
    truth = truth_of([3, 1], [0])
    values = grades(truth.lineup.blank.unsqueeze(0), truth)  # (0.1, green): both cells of 3
    assert values == grades(torch.zeros(0, 4), truth)
    assert values["cell_accuracy"] == 0.75
    assert values["record_match"] == 0.5


def test_what_an_auxiliary_record_says_too_is_not_beyond_it():
    exact = TABLE[:2]
    assert grades(exact, truth_of([0, 1], [0, 4]))["beyond_auxiliary"] == 0.0
    assert grades(exact, truth_of([0, 1], [5]))["beyond_auxiliary"] == 1.0
    without = grades(exact, truth_of([0, 1], []))
    assert math.isnan(without["beyond_auxiliary"])
    assert without["record_match"] == 1.0


def test_without_columns_there_are_no_such_metrics():
    truth = truth_of([0, 1], [], schema=None)
    assert set(FAMILY.grade(TABLE[:2], truth)) == set(METRICS)
    assert set(FAMILY.ceiling([truth])).isdisjoint(records.METRICS)
    assert FAMILY.ranked[0] == "cell_accuracy"
    assert records.pool([], []) == {}


def test_confidence_is_graded_by_the_cells_that_it_is_of():
    truth = truth_of([0, 1], [3])
    guess = torch.tensor([[0.0, 0, 0, 1], [1, 0, 1, 0]])  # the first colour is wrong
    sure = torch.zeros(2, 4)
    sure[0, 1:] = 0.9
    assert records.grade_confidence(guess, sure, truth) == {"confidence_auroc": (1.0, 0.5)}
    assert records.grade_confidence(guess, 1 - sure, truth) == {"confidence_auroc": (0.0, 0.5)}
    assert records.grade_confidence(guess, sure * 0, truth) == {"confidence_auroc": (0.5, 0.5)}
    right = records.grade_confidence(TABLE[:2], sure, truth)["confidence_auroc"][0]
    assert math.isnan(right)
    none = records.grade_confidence(guess[:0], sure[:0], truth)["confidence_auroc"][0]
    assert math.isnan(none)
    lineup = replace(truth.lineup, records=None)
    assert records.grade_confidence(guess, sure, replace(truth, lineup=lineup)) == {}


def test_a_set_of_clients_is_graded_by_all_their_records():
    one, other = truth_of([0], [3]), truth_of([1, 2], [3])
    wrong = torch.tensor([[1.0, 0, 0, 1]])
    values = records.pool([TABLE[:1], wrong], [one, other])
    # 0 exactly; 1 and 2 have one answer (1, blue) and the blind record (0.1, green): a cell each
    assert values["record_match"] == pytest.approx(1 / 3)
    assert values["cell_accuracy"] == pytest.approx(4 / 6)


def test_blind_is_the_better_of_the_mode_and_of_drawn_auxiliary_records():
    truth = truth_of([0, 1], [2, 5])  # drawn: ages −1, −1; blue and red
    guesses = [truth.lineup.blank.unsqueeze(0)]  # (0.1, green), twice
    mode, best = records.pool(guesses, [truth]), records.blind(guesses, [truth])
    assert mode["cell_accuracy"] == 0.5
    assert best["cell_accuracy"] == 0.5
    # of three colours drawn for two records one is 0's: as good as the mode's one
    assert best["number_accuracy"] == mode["number_accuracy"] == 0.5
    near = truth_of([0, 1], [3, 4])  # drawn: (0, green) and (1.1, green): ages of both
    assert records.blind(guesses, [near])["number_accuracy"] == 1.0
    assert records.blind(guesses, [near])["beyond_auxiliary"] == 0.0
    alone = truth_of([0, 1], [])
    assert records.blind(guesses, [alone])["cell_accuracy"] == 0.5
    assert FAMILY.grade_blind is not None
    assert FAMILY.grade_blind(guesses, [near])["number_accuracy"] == 1.0
    assert records.blind([], []) == {}
