import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from defenses import prune
from fedsim.core.params import norm
from fedsim.core.rng import generator
from fedsim.core.wire import from_record, to_record
from tests.builders import same_params

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
UPDATE = {
    "a": torch.tensor([[1.0, -8.0], [3.0, -4.0]]),
    "b": torch.tensor([2.0, -6.0, 0.0, 5.0, 7.0]),
    "c": torch.tensor(-9.0),
}


def pruned_slowly(update, rate):
    """Sort all entries by magnitude, of equal ones the first first, and keep the top."""
    entries = [
        (-abs(entry), place, name, spot)
        for place, (name, value) in enumerate(update.items())
        for spot, entry in enumerate(value.flatten().tolist())
    ]
    sent = {name: torch.zeros_like(value).contiguous() for name, value in update.items()}
    num_kept = max(1, round((1 - rate) * len(entries)))
    for _, _, name, spot in sorted(entries, key=lambda e: (e[0], e[1], e[3]))[:num_kept]:
        sent[name].view(-1)[spot] = update[name].flatten()[spot]
    return sent


def apply(update, **options):
    return prune(**options).apply(update, {}, generator(0))[0]


@pytest.mark.parametrize(
    ("rate", "kept"),
    [
        (0.0, {1.0, -8.0, 3.0, -4.0, 2.0, -6.0, 5.0, 7.0, -9.0}),
        (0.5, {-8.0, -6.0, 5.0, 7.0, -9.0}),
        (0.9, {-9.0}),
        (0.99, {-9.0}),  # at least one
    ],
)
def test_the_largest_entries_of_the_whole_update_stay(rate, kept):
    sent = apply(UPDATE, rate=rate)
    for name, value in UPDATE.items():
        expected = [x if x in kept else 0.0 for x in value.flatten().tolist()]
        assert sent[name].flatten().tolist() == expected
        assert sent[name].shape == value.shape


def test_per_layer_the_largest_of_each_tensor_stay():
    sent = apply(UPDATE, rate=0.75, per_layer=True)
    assert sent["a"].tolist() == [[0.0, -8.0], [0.0, 0.0]]
    assert sent["b"].tolist() == [0.0, 0.0, 0.0, 0.0, 7.0]
    assert float(sent["c"]) == -9.0


@given(st.integers(0, 10**6), st.floats(0, 0.999), st.integers(1, 5), st.booleans())
def test_it_is_the_slow_sort_with_many_ties(seed, rate, distinct, per_layer):
    stream = generator(seed)
    update = {
        name: torch.randint(-distinct, distinct + 1, shape, generator=stream).to(dtype)
        for name, shape, dtype in (
            ("half", (3, 7), torch.float16),
            ("empty", (0, 2), torch.float32),
            ("brain", (11,), torch.bfloat16),
            ("scalar", (), torch.float64),
            ("single", (2, 3, 5), torch.float32),
        )
    }
    update["turned"] = update["single"].permute(2, 0, 1)  # entries count in reading order
    sent = apply(update, rate=rate, per_layer=per_layer)
    expected = (
        {n: pruned_slowly({n: v}, rate)[n] if v.numel() else v for n, v in update.items()}
        if per_layer
        else pruned_slowly(update, rate)
    )
    assert same_params(sent, expected)
    assert [v.dtype for v in sent.values()] == [v.dtype for v in update.values()]


def large(kind):
    """An update of 200,000 entries: the threshold is guessed from a sample first."""
    flat = torch.randn(200_000, generator=generator(0, "large"), dtype=torch.float64)
    if kind == "ties":
        flat = (flat * 3).round()
    if kind == "misleading":  # the sample sees nothing but zeros
        flat[:150_000:7] = 0
    if kind == "mostly zero":
        flat[flat.abs() < 2] = 0
    return {"a": flat[:150_000].view(300, 500).clone(), "b": flat[150_000:].float()}


@pytest.mark.parametrize("kind", ["plain", "ties", "misleading", "mostly zero"])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 0.99, 0.99999])
def test_a_guessed_threshold_gives_the_slow_sort_too(kind, rate):
    update = large(kind)
    sent = apply(update, rate=rate)
    flat = torch.cat([value.flatten().double() for value in update.values()])
    num_kept = max(1, round((1 - rate) * len(flat)))
    kept = flat.abs().sort(descending=True, stable=True).indices[:num_kept]
    expected = torch.zeros_like(flat)
    expected[kept] = flat[kept]
    assert torch.equal(torch.cat([v.flatten().double() for v in sent.values()]), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("share", [1, 3, 9])
def test_what_is_no_number_stays_so_that_the_upload_fails(bad, share):
    value = torch.arange(1.0, 10.0)
    value[:share] = bad
    sent = apply({"a": value}, rate=0.5)
    assert not torch.isfinite(sent["a"]).all()


def test_without_entries_there_is_nothing_to_keep():
    assert apply({}) == {}
    assert apply({"a": torch.zeros(0, 3)})["a"].shape == (0, 3)


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_error_feedback_loses_nothing(dtype, per_layer):
    stream = generator(0, "feedback")
    defense = prune(rate=0.8, per_layer=per_layer, error_feedback=True)
    total = {"a": torch.zeros(4, 5, dtype=dtype), "b": torch.zeros(30, dtype=dtype)}
    sum_sent = dict(total)
    state = defense.init(total)
    for _ in range(20):
        update = {n: torch.randn(v.shape, generator=stream, dtype=dtype) for n, v in total.items()}
        sent, state = defense.apply(update, state, stream)
        sum_sent = {n: sum_sent[n] + sent[n] for n in sent}
        total = {n: total[n] + update[n] for n in update}
        if not per_layer:
            assert sum(int(v.count_nonzero()) for v in sent.values()) == 10
    rest = {n: state[f"residual.{n}"] for n in total}
    torch.testing.assert_close({n: sum_sent[n] + rest[n] for n in total}, total)
    assert list(state) == ["residual.a", "residual.b"]


def test_error_feedback_by_hand():
    defense = prune(rate=0.5, error_feedback=True)
    update = {"a": torch.tensor([4.0, 3.0, -1.0, 0.0])}
    first, state = defense.apply(update, defense.init(update), generator(0))
    assert first["a"].tolist() == [4.0, 3.0, 0.0, 0.0]
    assert state["residual.a"].tolist() == [0.0, 0.0, -1.0, 0.0]
    update = {"a": torch.tensor([0.5, 0.25, -1.0, -3.0])}
    second, state = defense.apply(update, state, generator(0))
    assert second["a"].tolist() == [0.0, 0.0, -2.0, -3.0]
    assert state["residual.a"].tolist() == [0.5, 0.25, 0.0, 0.0]


def test_momentum_correction_and_its_masking_by_hand():
    defense = prune(rate=0.5, error_feedback=True, momentum=0.5)
    update = {"a": torch.tensor([4.0, 1.0])}
    first, state = defense.apply(update, defense.init(update), generator(0))
    assert first["a"].tolist() == [4.0, 0.0]
    assert state["velocity.a"].tolist() == [0.0, 1.0]  # masked where it was sent
    assert state["residual.a"].tolist() == [0.0, 1.0]
    update = {"a": torch.tensor([2.0, 1.0])}
    second, state = defense.apply(update, state, generator(0))
    # u = (0/2 + 2, 1/2 + 1), v = (0 + 2, 1 + 1.5)
    assert second["a"].tolist() == [0.0, 2.5]
    assert state["velocity.a"].tolist() == [2.0, 0.0]
    assert state["residual.a"].tolist() == [2.0, 0.0]
    third, state = defense.apply({"a": torch.zeros(2)}, state, generator(0))
    # u = (1, 0), v = (3, 0)
    assert third["a"].tolist() == [3.0, 0.0]
    assert not any(value.any() for value in state.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_stay_in_update_and_state(dtype):
    update = {
        "a": torch.randn(9, generator=generator(0)).to(dtype),
        "b": torch.ones((), dtype=dtype),
    }
    defense = prune(rate=0.5, error_feedback=True, momentum=0.9)
    sent, state = defense.apply(update, defense.init(update), generator(0))
    assert {value.dtype for value in (*sent.values(), *state.values())} == {dtype}
    assert state.keys() == defense.init(update).keys()


def test_its_memory_is_pure_and_survives_the_wire():
    defense = prune(rate=0.7, error_feedback=True, momentum=0.9)
    _, state = defense.apply(UPDATE, defense.init(UPDATE), generator(0))
    kept = {name: value.clone() for name, value in state.items()}
    here, after = defense.apply(UPDATE, state, generator(0))
    there, back = defense.apply(UPDATE, from_record(to_record(state)), generator(0))
    assert same_params(state, kept)
    assert same_params(here, there)
    assert same_params(after, back)


def test_only_without_memory_no_update_grows_longer():
    assert prune().bound(2.0) == 2.0
    assert float(norm(apply(UPDATE, rate=0.5))) <= float(norm(UPDATE))
    assert prune(error_feedback=True).bound(2.0) == math.inf


@pytest.mark.parametrize("option", ["rate", "momentum"])
@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_a_rate_and_a_momentum_lie_below_1(option, value):
    with pytest.raises(ValueError, match=f"^{option}: must be at least 0 and below 1, got "):
        prune(**{"error_feedback": True, option: value})


def test_momentum_needs_error_feedback():
    with pytest.raises(ValueError, match=r"^momentum: must be 0 without error_feedback, got 0\.9$"):
        prune(momentum=0.9)
