import math

import pytest
import torch

from defenses import chain, clip, gaussian, sparsify
from fedsim.core.rng import generator

NUM = 40_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.999])
def test_each_entry_is_kept_at_the_promised_rate(rate, dtype):
    update = {"a": torch.full((NUM,), 3.0, dtype=dtype)}
    sent, _ = sparsify(rate=rate).apply(update, {}, generator(0, rate))
    kept = sent["a"] != 0
    assert abs(int(kept.sum()) - NUM * (1 - rate)) < 4 * math.sqrt(NUM * rate * (1 - rate))
    torch.testing.assert_close(
        sent["a"][kept], torch.full((int(kept.sum()),), 3 / (1 - rate), dtype=dtype),
        rtol=1e-4, atol=0.0,
    )  # fmt: skip


def test_its_mean_is_the_update_where_it_is_unbiased():
    entries = torch.tensor([-2.0, -0.1, 0.0, 0.1, 5.0])
    update = {"a": entries.repeat(NUM, 1)}
    rate = 0.7
    for unbiased, factor in ((True, 1.0), (False, 1 - rate)):
        sent, _ = sparsify(rate=rate, unbiased=unbiased).apply(update, {}, generator(0))
        scale = factor / (1 - rate)
        error = entries.abs() * scale * math.sqrt(rate * (1 - rate) / NUM)
        assert ((sent["a"].mean(0) - factor * entries).abs() <= 4 * error + 1e-6).all()


def test_the_biased_one_leaves_what_it_keeps_and_rate_0_keeps_all():
    update = {"a": torch.randn(1000, generator=generator(0))}
    sent, _ = sparsify(rate=0.5, unbiased=False).apply(update, {}, generator(0))
    kept = sent["a"] != 0
    assert torch.equal(sent["a"][kept], update["a"][kept])
    same, _ = sparsify(rate=0.0).apply(update, {}, generator(0))
    assert torch.equal(same["a"], update["a"])


def test_the_largest_rate_below_1_still_divides_by_a_number():
    sent, _ = sparsify(rate=1 - 2**-53).apply({"a": torch.ones(10)}, {}, generator(0))
    assert torch.isfinite(sent["a"]).all()


def test_the_bound_counts_the_scale():
    assert sparsify(rate=0.75).bound(2.0) == pytest.approx(8.0)
    assert sparsify(rate=0.75, unbiased=False).bound(2.0) == 2.0
    assert chain(clip(), sparsify(), gaussian(std=1.0)).promise.formal


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan])
def test_the_rate_must_be_a_rate(rate):
    with pytest.raises(ValueError, match="^rate: must be at least 0 and below 1, got "):
        sparsify(rate=rate)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_shapes_stay(dtype):
    update = {"none": torch.zeros(0, 2, dtype=dtype), "one": torch.ones((), dtype=dtype)}
    sent, _ = sparsify().apply(update, {}, generator(0))
    assert [(v.dtype, v.shape) for v in sent.values()] == [(dtype, (0, 2)), (dtype, ())]
