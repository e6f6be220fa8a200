"""Stored scores, and what jax_privacy 2.0.0's CanaryScoreAuditor makes of them (δ 1e-5, 95 %)."""

import json
from pathlib import Path

import numpy as np
import pytest

from adversary.auditing.clopper_pearson import clopper_pearson
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
