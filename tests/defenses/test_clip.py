import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from defenses import clip
from fedsim.core.params import norm
from fedsim.core.rng import generator

UPDATE = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}


@pytest.mark.parametrize(("bound", "scale"), [(10.0, 1.0), (5.0, 1.0), (2.5, 0.5), (1.0, 0.2)])
def test_a_longer_update_is_scaled_to_the_bound(bound, scale):
    clipped, _ = clip(bound=bound).apply(UPDATE, {}, generator(0))
    for name, value in UPDATE.items():
        torch.testing.assert_close(clipped[name], value * scale)


@given(st.floats(1e-3, 1e3), st.integers(0, 50), st.sampled_from([torch.float32, torch.float64]))
def test_the_norm_never_exceeds_the_bound(bound, seed, dtype):
    stream = generator(seed, "clip")
    update = {str(i): torch.randn(40, generator=stream, dtype=dtype) * 10**i for i in range(3)}
    clipped, _ = clip(bound=bound).apply(update, {}, stream)
    assert float(norm(clipped)) <= bound
    if float(norm(update)) > bound:
        assert float(norm(clipped)) > bound * (1 - 1e-5)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_the_bound_must_be_positive(bound):
    with pytest.raises(ValueError, match="bound: must be > 0"):
        clip(bound=bound)


def test_each_layer_may_have_its_own_bound():
    clipped, _ = clip(bound=3.5, per_layer=True).apply(UPDATE, {}, generator(0))
    assert torch.equal(clipped["a"], UPDATE["a"])
    torch.testing.assert_close(clipped["b"], torch.tensor([[3.5]]))
