"""Stored scores, and what jax_privacy 2.0.0's CanaryScoreAuditor makes of them (δ 1e-5, 95 %)."""

import json
from pathlib import Path

import numpy as np
import pytest

from adversary.auditing.clopper_pearson import clopper_pearson
from adversary.auditing.hull import corners, hull
from adversary.auditing.multi_split import multi_split
from adversary.auditing.one_run import one_run_epsilon
from adversary.auditing.trials import Threshold, Trials
from defenses.promise import Relation

STORED = json.loads(Path(__file__).with_name("scores.json").read_text())
MIDDLE, GUESSED = 0.0005, 0.5005  # thresholds that no score is equal to


@pytest.mark.parametrize(
    ("name", "fixed", "one_run"),
    [
        ("0.5", 0.1338788932934214, 0.26268237550122786),
        ("1.5", 1.1140139655668087, 1.7680885251066447),
    ],
)
def test_the_same_scores_have_the_same_bounds(name, fixed, one_run):
    without, having = (np.array(STORED[name][part]) for part in ("without", "having"))
    trials = Trials(without, having)
    found = clopper_pearson(trials, Threshold(MIDDLE), relation=Relation.ZERO_EXAMPLE)
    assert found.epsilon == pytest.approx(fixed, abs=1e-9)
    right = int((having > GUESSED).sum())
    guesses = right + int((without > GUESSED).sum())
    found = one_run_epsilon(400, guesses, right, delta=1e-5, confidence=0.95)
    assert found == pytest.approx(one_run, abs=5e-6)


@pytest.mark.parametrize(
    ("name", "at_corners", "over_splits"),
    [("0.5", 0.0946737493, 0.0), ("1.5", 1.6643598840, 1.2685634673)],
)
def test_hull_and_many_splits_have_the_same_bounds(name, at_corners, over_splits):
    trials = Trials(*(np.array(STORED[name][part]) for part in ("without", "having")))
    relation = Relation.ZERO_EXAMPLE
    assert hull(trials, relation=relation).epsilon == pytest.approx(at_corners, abs=1e-9)
    orders = []
    for seed in np.random.default_rng(3).integers(np.iinfo(np.int64).max, size=20):
        stream = np.random.default_rng(seed)
        having, without = (stream.permutation(200) for _ in range(2))
        orders.append((without, having))
    bound = multi_split(trials, relation=relation, orders=orders)
    assert bound.epsilon == pytest.approx(over_splits, abs=1e-9)


def test_corners_are_what_no_two_others_are_as_good_as():
    trials = Trials(np.array([0.0, 1.0, 2.0, 5.0]), np.array([2.5, 3.0, 4.0, 6.0]))
    assert corners(trials).tolist() == [-1.0, 2.0, 5.0, 6.0]


def test_the_median_of_many_splits_holds_over_seeds():
    wrong = 0
    for seed in range(40):
        stream = np.random.default_rng(seed)
        trials = Trials(stream.laplace(-0.5, 1, 100), stream.laplace(0.5, 1, 100))
        orders = [(stream.permutation(100), stream.permutation(100)) for _ in range(10)]
        bound = multi_split(trials, relation=Relation.ZERO_EXAMPLE, delta=1e-9, orders=orders)
        wrong += bound.epsilon > 1
    assert wrong <= 6
