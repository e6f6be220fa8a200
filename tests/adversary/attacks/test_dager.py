"""DAGER recovers batches below the cliff, and certifies nothing that is wrong."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adversary.attacks.dager import dager
from fedsim.core.errors import NotApplicable
from tests.adversary.text.cases import (
    adapted,
    answered,
    auxiliary_of,
    build,
    gradient,
    observed,
    trained,
    unpadded,
)
from tests.adversary.text.language import prefixes_of, texts

SEEDS = st.integers(0, 2**16)


@settings(max_examples=10)
@given(seed=SEEDS, count=st.integers(1, 7))
def test_exact_and_certified_below_the_cliff_and_never_certified_and_wrong(seed, count):
    model, ids = build(seed=seed % 7), texts(seed, count)
    seen = observed(model, gradient(model, ids), count)
    guess, remarks = answered(dager, [seen], auxiliary_of(model))
    exact = set(guess) == set(unpadded(ids))
    if len(prefixes_of(ids)) < 32 - 3:
        assert exact
        assert not remarks
    assert exact or "not certified" in remarks[0]


@pytest.mark.worked
def test_a_text_that_begins_another_and_one_that_occurs_twice_are_read_off_the_head():
    ids = torch.tensor([[1, 9, 8, 0, 0], [1, 9, 8, 7, 5], [1, 6, 0, 0, 0], [1, 6, 0, 0, 0]])
    model = build(length=5)
    seen = observed(model, gradient(model, ids), 4)
    guess, remarks = answered(dager, [seen], auxiliary_of(model, shape=(5,)))
    assert set(guess) == set(unpadded(ids))
    assert not remarks


@pytest.mark.worked
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_clipped_gradient_says_as_much(scale):
    model, ids = build(), texts(0, 3)
    delta = {name: scale * value for name, value in gradient(model, ids).items()}
    guess, remarks = answered(dager, [observed(model, delta, 3)], auxiliary_of(model))
    assert set(guess) == set(unpadded(ids))
    assert not remarks


@pytest.mark.worked
def test_order_in_the_batch_makes_no_difference():
    model, ids = build(), texts(3, 4)
    answers = [
        answered(dager, [observed(model, gradient(model, rows), 4)], auxiliary_of(model))
        for rows in (ids, ids.flip(0))
    ]
    assert set(answers[0][0]) == set(answers[1][0])


@pytest.mark.worked
def test_a_tied_head_is_no_obstacle():
    ids, model = texts(1, 2), build(tie=True, width=64)
    guess, _ = answered(dager, [observed(model, gradient(model, ids), 2)], auxiliary_of(model))
    assert set(guess) == set(unpadded(ids))


@pytest.mark.parametrize("seed", range(2))
def test_what_rotary_positions_leave_open_is_not_certified(seed):
    """Which of these texts come back depends on the rounding of the processor."""
    ids, model = texts(1 + seed, 2), build(positions="rotary", seed=seed)
    seen = observed(model, gradient(model, ids), 2)
    guess, remarks = answered(dager, [seen], auxiliary_of(model))
    assert guess
    assert set(guess) == set(unpadded(ids)) or any("not certified" in it for it in remarks)


@pytest.mark.worked
def test_an_encoders_one_text_is_certified_and_several_are_not():
    model = build("bert")
    ids = texts(0, 1)
    seen = observed(model, gradient(model, ids, torch.tensor([1])), 1)
    guess, remarks = answered(dager, [seen], auxiliary_of(model, per_token=False))
    assert guess == unpadded(ids)
    assert not remarks
    both = texts(0, 2)
    seen = observed(model, gradient(model, both, torch.tensor([1, 0])), 2)
    _, remarks = answered(dager, [seen], auxiliary_of(model, per_token=False))
    assert "not certified" in remarks[0]


@pytest.mark.worked
def test_noise_and_local_steps_are_not_certified():
    model, ids = build(), texts(0, 2)
    noisy = {name: v + 1e-3 * torch.randn_like(v) for name, v in gradient(model, ids).items()}
    _, remarks = answered(dager, [observed(model, noisy, 2)], auxiliary_of(model))
    assert "not certified" in remarks[0]
    seen = observed(model, trained(model, ids), 2, epochs=5, momentum=0.9)
    _, remarks = answered(dager, [seen], auxiliary_of(model))
    assert "not certified" in remarks[0]
    dropping = build(dropout=0.1)
    _, remarks = answered(dager, [observed(dropping, noisy, 2)], auxiliary_of(dropping))
    assert "dropout" in remarks[0]


@pytest.mark.worked
def test_what_it_is_not_made_for_is_refused():
    model, ids = build(), texts(0, 2)
    seen = observed(model, gradient(model, ids), 2)
    with pytest.raises(NotApplicable, match="num_clients: must be 1"):
        answered(
            dager, [replace(seen, update=replace(seen.update, num_clients=2))], auxiliary_of(model)
        )
    broken = {name: value * torch.nan for name, value in seen.update.delta.items()}
    with pytest.raises(ValueError, match="finite"):
        answered(dager, [observed(model, broken, 2)], auxiliary_of(model))
    nothing = {name: value * 0 for name, value in seen.update.delta.items()}
    guess, remarks = answered(dager, [observed(model, nothing, 2)], auxiliary_of(model))
    assert guess == []
    assert "not certified" in remarks[0]


@pytest.mark.worked
def test_adapters_of_low_rank_are_refused():
    """Eight rows each of queries and values span at most 16 of 31 directions."""
    model, ids = adapted(build()), texts(0, 1)
    for delta in (gradient(model, ids), trained(model, ids)):
        with pytest.raises(NotApplicable, match="at least 31 rows together .* got 16: adapters"):
            answered(dager, [observed(model, delta, 1)], auxiliary_of(model))
