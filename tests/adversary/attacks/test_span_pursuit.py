"""Pursuit reads texts off adapters, and off noisy gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adversary.attacks.span_pursuit import span_pursuit, span_pursuit_rounds
from adversary.text.pursued import measured, pursued
from adversary.workspace import workspace
from defenses import build as build_defenses
from fedsim.config import parse
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import View
from tests.adversary.text.cases import (
    adapted,
    answered,
    auxiliary_of,
    build,
    gradient,
    observed,
    state_of,
    trained,
    unpadded,
)
from tests.adversary.text.language import pairs_of, texts

SEEDS = st.integers(0, 2**16)
LOCAL = {"epochs": 5, "momentum": 0.9}


@settings(max_examples=8)
@given(seed=SEEDS)
def test_one_text_of_a_client_with_adapters_is_exact(seed):
    model, ids = adapted(build(width=64), rank=4, seed=seed), texts(seed, 1)
    seen = observed(model, trained(model, ids), 1, **LOCAL)
    guess, remarks = answered(span_pursuit, [seen], auxiliary_of(model))
    assert guess == unpadded(ids)
    assert not remarks


@pytest.mark.worked
def test_two_texts_are_told_apart_by_the_gradient_of_both():
    model, ids = adapted(build(width=64)), texts(4, 2)
    seen = observed(model, trained(model, ids), 2, **LOCAL)
    guess, _ = answered(span_pursuit, [seen], auxiliary_of(model))
    assert set(guess) == set(unpadded(ids))


@pytest.mark.worked
def test_spans_of_rounds_add_up():
    model, ids = adapted(build(width=64), rank=2), texts(5, 6)
    others, rounds = texts(9, 3), []
    for number in range(1, 5):
        delta = trained(model, ids)
        rounds.append(observed(model, delta, 6, round_=number, **LOCAL))
        moved = trained(model, others)
        after = {n: v + (delta[n] + moved[n]) / 2 for n, v in state_of(model).items()}
        model.load_state_dict(after)
    work, true = workspace(View(rounds), auxiliary_of(model)), pairs_of(ids)
    rows = [measured(seen, work.at(seen)) for seen in rounds]
    found = [
        pursued(rounds[-1], torch.cat(some), work, texts=6).pairs.tolist()
        for some in (rows[-1:], rows)
    ]
    correct = [len(true & set(map(tuple, pairs))) for pairs in found]
    assert correct[0] < correct[1]
    guess, _ = answered(span_pursuit_rounds, rounds, auxiliary_of(model))
    assert len(guess) == 6


@pytest.mark.worked
def test_a_first_gradient_of_adapters_shows_nothing():
    model, ids = adapted(build(width=64)), texts(0, 1)
    seen = observed(model, gradient(model, ids), 1)
    assert not any(value.any() for name, value in seen.update.delta.items() if "down" in name)
    guess, remarks = answered(span_pursuit, [seen], auxiliary_of(model))
    assert guess == []
    assert "no direction" in remarks[0]


@pytest.mark.worked
def test_noise_of_a_known_defense_is_no_direction():
    model, ids = adapted(build(width=64)), texts(0, 1)
    config = parse({"defense": [{"name": "gaussian", "std": 1e-5}]}).defense
    defense = build_defenses(config)
    delta, _ = defense.apply(trained(model, ids), {}, generator(0, "noise"))
    seen = observed(model, delta, 1, **LOCAL)
    unaware, remarks = answered(span_pursuit, [seen], auxiliary_of(model))
    aware, others = answered(span_pursuit, [seen], auxiliary_of(model, defense=defense))
    assert remarks
    assert not others
    assert aware == unpadded(ids)
    assert unaware


@pytest.mark.worked
def test_full_gradients_with_noise_are_pursued_by_the_noise_of_the_head():
    model, ids = build(width=64), texts(2, 2)
    noise = generator(0, "noise")
    delta = {
        name: value + 1e-5 * torch.randn(value.shape, generator=noise)
        for name, value in gradient(model, ids).items()
    }
    guess, _ = answered(span_pursuit, [observed(model, delta, 2)], auxiliary_of(model))
    assert set(guess) == set(unpadded(ids))


@pytest.mark.worked
def test_what_it_is_not_made_for_is_refused():
    model, ids = build(), texts(0, 1)
    seen = observed(model, gradient(model, ids), 1)
    with pytest.raises(NotApplicable, match="frozen token table"):
        answered(span_pursuit_rounds, [seen], auxiliary_of(model))
    cohort = replace(seen, update=replace(seen.update, num_clients=3))
    with pytest.raises(NotApplicable, match="num_clients: must be 1"):
        answered(span_pursuit, [cohort], auxiliary_of(model))
    frozen = adapted(build())
    kept = {n: v for n, v in trained(frozen, ids).items() if not n.startswith("blocks.0")}
    with pytest.raises(NotApplicable, match="linear maps of embedded tokens"):
        answered(span_pursuit, [observed(frozen, kept, 1, **LOCAL)], auxiliary_of(frozen))


@pytest.mark.worked
def test_a_number_of_texts_that_is_not_known_is_the_most_tokens_of_a_position():
    model, ids = adapted(build(width=64)), texts(4, 2)
    seen = observed(model, trained(model, ids), None, **LOCAL)
    guess, _ = answered(span_pursuit, [seen], auxiliary_of(model))
    assert set(guess) == set(unpadded(ids))
