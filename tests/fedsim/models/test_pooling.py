import pytest
import torch
from torch.func import vmap
from torch.nn import functional

from fedsim.models.pooling import FastPooling

pytestmark = pytest.mark.twin


def slopes(pool, values):
    """Return what comes out, and the gradient of its sum with random weights."""
    moving = values.detach().requires_grad_()
    pooled = pool(moving)
    weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
    return pooled.detach(), torch.autograd.grad((pooled * weights.to(pooled.dtype)).sum(), moving)[
        0
    ]


def fast(values):
    with FastPooling():
        return functional.max_pool2d(values, 2)


def together(values):
    with FastPooling():
        return vmap(lambda it: functional.max_pool2d(it, 2), in_dims=1, out_dims=1)(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5, 2, 8, 6), (2, 4, 1, 7, 5), (2, 3, 1, 2, 2)])
def test_it_is_pytorchs_pooling_to_the_bit(shape, dtype):
    stream = torch.Generator().manual_seed(0)
    # Whole numbers tie often: the first of them in reading order has the gradient.
    values = torch.randint(0, 3, shape, generator=stream).to(dtype)
    plain = lambda it: functional.max_pool2d(it.flatten(0, 1), 2).unflatten(0, shape[:2])
    for one, other in zip(slopes(plain, values), slopes(together, values), strict=True):
        assert torch.equal(one, other)
    image = values[0]
    pairs = zip(
        slopes(lambda it: functional.max_pool2d(it, 2), image), slopes(fast, image), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 2, "stride": 1},
        {"kernel_size": 2, "padding": 1},
        {"kernel_size": 2, "dilation": 2},
        {"kernel_size": 2, "ceil_mode": True},
        {"kernel_size": (2, 1)},
        {"kernel_size": 2, "return_indices": True},
    ],
)
def test_any_other_pooling_is_pytorchs(options):
    values = torch.randn(2, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    plain = functional.max_pool2d(values, **options)
    with FastPooling():
        other = functional.max_pool2d(values, **options)
    if not isinstance(plain, tuple):
        with FastPooling():  # by all names
            direct = torch.max_pool2d(input=values, **options)
        assert torch.equal(direct, plain)
    pairs = zip(plain, other, strict=True) if isinstance(plain, tuple) else [(plain, other)]
    assert all(torch.equal(one, two) for one, two in pairs)


def test_not_a_number_stays_one():
    values = torch.tensor([[[1.0, float("nan")], [2.0, 0.0]]])
    assert fast(values).isnan().all()
