"""Audits of the last model alone: as much as theory says, never more, and bugs are refuted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom, ks_2samp

from defenses.promise import gaussian_epsilon
from fedsim.audit import runs as audit_runs
from fedsim.audit.last_model import LastModel, canary_loss
from fedsim.audit.mechanism import mechanism
from fedsim.audit.neighbours import chosen
from fedsim.audit.setup import prepare
from fedsim.audit.statistic import statistic
from fedsim.core.errors import ConfigError
from tests.fedsim.audit.test_mechanism import DP_SGD as DP_SGD_PART
from tests.fedsim.audit.test_mechanism import GRADIENT, NOISE, WEIGHTS, neighbours
from tests.fedsim.audit.test_table import CLIP, DP_SGD, SIGMA, audited, config

ROUNDS = 4
QUANTISE = {"name": "quantise"}


@pytest.fixture(autouse=True)
def few_for_calibration(monkeypatch):
    monkeypatch.setattr(audit_runs, "CALIBRATION", 10)


def last(*defenses, seed=0, **audit):
    few = {"canary": ["gradient"], "rounds": ROUNDS, "view": "last"}
    return config(*defenses, **{**few, **audit}).model_copy(update={"seed": seed})


def test_a_crafted_gradient_in_the_last_model_is_as_exact_as_in_every_round():
    epsilons = {}
    for view in ("rounds", "last"):
        setup = prepare(last(CLIP, SIGMA, view=view))
        pair = chosen(setup)
        score = statistic(setup.observed, pair)
        without, having = (
            score.scores(setup.observed.uploads(pair, which, 4000, view), len(score.middles))
            for which in (0, 1)
        )
        assert setup.claim.epsilon == pytest.approx(gaussian_epsilon(ROUNDS**0.5, 1e-5))
        mu = (having.mean() - without.mean()) / np.sqrt((having.var() + without.var()) / 2)
        assert mu == pytest.approx(ROUNDS**0.5, abs=5 * (2 / 4000 + 2 / 8000) ** 0.5)
        moved = setup.mechanism.local.lr if view == "last" else 1.0  # times twice the clip of 0.5
        assert score.distances == pytest.approx([moved] * ROUNDS, rel=1e-4)
        epsilons[view] = setup.claim.epsilon
    assert epsilons["rounds"] == epsilons["last"]  # the claim is the same


def test_the_bound_comes_near_the_exact_value_and_the_claim_stands(tmp_path):
    result = audited(last(CLIP, SIGMA, trials=3000), tmp_path)
    assert result.verdict is None
    assert "4 rounds of which only the last model is seen" in result.claimed
    row = next(row for row in result.rows if row.method == "mu-gdp")
    assert row.exact == pytest.approx(row.claimed, rel=1e-3)
    assert 0.8 * row.exact < row.epsilon < 1.1 * row.exact


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defenses", "canary"),
    [([DP_SGD], "natural"), ([CLIP, SIGMA], "gradient"), ([CLIP, SIGMA, QUANTISE], "natural")],
)
def test_an_honest_mechanism_is_silent(tmp_path, defenses, canary):
    seeds = 5
    results = [
        audited(last(*defenses, seed=seed, trials=60, canary=[canary]), tmp_path / str(seed))
        for seed in range(seeds)
    ]
    refuted = sum(bool(result.refuted) for result in results)
    assert binom.sf(refuted - 1, seeds, 0.05) > 1e-3


def test_noise_that_is_forgotten_in_the_last_round_is_refuted(tmp_path):
    bare = {"name": "tests.planted:bare_at_last", "std": 1.0}
    result = audited(last(CLIP, bare, rounds=2, trials=400), tmp_path)
    assert {"mu-gdp"} <= {row.method for row in result.refuted}
    honest = audited(last(CLIP, SIGMA, rounds=2, trials=400), tmp_path / "honest")
    assert not honest.refuted


def test_opposite_gradients_cancel_and_are_refused():
    with pytest.raises(ConfigError, match="'opposite' must go with view = rounds, because it canc"):
        prepare(last(CLIP, SIGMA, canary=["opposite"]))
    with pytest.raises(ConfigError, match="audit.view: must be rounds or last, got 'first'"):
        last(view="first")


@pytest.mark.parametrize("local", [GRADIENT, WEIGHTS], ids=lambda local: local.upload)
def test_every_round_trains_from_where_the_round_before_left_the_model(local):
    made, both = mechanism((), local), neighbours(rounds=3)
    ((_, moved),) = LastModel(made).uploads(both, 1, 1, "x")
    sent, state = both.states[0], {}
    for place in range(3):
        upload, state = made.once(both.model, sent, both.batches[1][place], state, ("x", 0, place))
        step = -local.lr * upload if local.upload == "gradient" else upload
        parts = step.split([value.numel() for value in sent.values()])
        sent = {n: v + part.view(v.shape) for (n, v), part in zip(sent.items(), parts, strict=True)}
    change = torch.cat([(sent[n] - both.states[0][n]).flatten() for n in sent])
    torch.testing.assert_close(moved[0], change, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("parts", [DP_SGD_PART, NOISE], ids=lambda parts: parts[0].name)
def test_runs_drawn_at_once_are_as_those_drawn_one_by_one(parts):
    setup = prepare(last(CLIP, SIGMA))
    pair = chosen(setup)
    local = setup.mechanism.local
    fast = LastModel(mechanism(parts, local))
    slow = LastModel(replace(mechanism(parts, local), vectorised=False))
    score = statistic(fast, pair)
    scores = [score.scores(each.uploads(pair, 1, 150, "x"), 1) for each in (fast, slow)]
    assert len(scores[0]) == len(scores[1]) == len(set(scores[0].tolist())) == 150
    assert ks_2samp(*scores).pvalue > 1e-3


@pytest.mark.parametrize("relation", ["replace", "remove"])
def test_the_loss_of_the_canary_under_the_last_model_is_a_score(relation):
    both = neighbours(relation=relation)
    losses = canary_loss(both)(torch.zeros(2, 26))
    both.model.load_state_dict(both.states[0])
    absent, present = (batches[0] for batches in both.batches)
    each = [
        float(torch.nn.functional.cross_entropy(both.model(b.inputs[:1]), b.labels[:1]).detach())
        for b in (present, absent)
    ]
    right = each[0] - each[1] if relation == "replace" else each[0]
    assert losses.tolist() == pytest.approx([right, right], rel=1e-5)


def test_a_record_is_told_by_its_loss_where_nothing_hides_it(tmp_path):
    made = last(canary=["natural"], trials=30, rounds=2)
    result = audited(made, tmp_path)
    names = audit_runs.canary_runs(prepare(made), "run", "natural", tmp_path).measures.names
    assert names[-1] == "loss of the canary"
    assert max(row.epsilon for row in result.rows if row.method == "learned") > 0
