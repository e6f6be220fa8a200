import pytest
import torch
from torch import nn

from adversary.inversion.fully_connected import ratios
from fedsim.core.rng import generator
from tests.adversary.inversion.inversion_cases import CLASSES, gradient, net, psnr, sent

FEATURES = 60


def batch(count, *, seed=0, dtype=torch.float64, units=80):
    """Return a ReLU net's gradient of some records, its weights, and the records."""
    model = net(
        nn.Linear(FEATURES, units), nn.ReLU(), nn.Linear(units, CLASSES), seed=seed
    )  # fmt: skip
    stream = generator(seed, "records")
    x = torch.randn(count, FEATURES, generator=stream, dtype=torch.float64)
    labels = torch.randint(CLASSES, (count,), generator=stream)
    seen = {name: g.to(dtype).double() for name, g in gradient(model, x, labels).items()}
    own = sent(model)
    return seen["0.weight"], seen["0.bias"], own["0.weight"], own["0.bias"], x


def nearest(found, x):
    """Return the dB of the nearest answer to each record."""
    return [max(psnr(one, true) for one in found) for true in x]


@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 300), (torch.float32, 140)])
def test_one_record_is_read_off_exactly(dtype, least):
    grad_weight, grad_bias, _, _, x = batch(1, dtype=dtype)
    assert nearest(ratios(grad_weight, grad_bias, 1).inputs, x)[0] > least


def test_records_that_are_alone_on_units_are_found_and_counted():
    grad_weight, grad_bias, _, _, x = batch(3, units=400)
    found = ratios(grad_weight, grad_bias, 3)
    assert len(found.inputs) == 3
    assert min(nearest(found.inputs, x)) > 250
    assert int(found.units.min()) > 1
    assert found.units.tolist() == sorted(found.units.tolist(), reverse=True)


def test_a_units_ratio_is_the_mean_of_its_records_weighted_by_their_gradients():
    model = net(nn.Linear(4, 1), nn.Sigmoid(), nn.Linear(1, CLASSES))
    x, labels = torch.randn(3, 4).double(), torch.tensor([0, 1, 2])
    seen = gradient(model, x, labels)
    each = [gradient(model, x[k : k + 1], labels[k : k + 1])["0.bias"] for k in range(3)]
    mean = sum(d * one for d, one in zip(each, x, strict=True)) / sum(each)
    found = ratios(seen["0.weight"], seen["0.bias"], 2).inputs
    torch.testing.assert_close(found[0], mean)


@pytest.mark.parametrize("count", [1, 3])
def test_biases_without_a_gradient_are_refused(count):
    with pytest.raises(ValueError, match="update: a gradient must reach .* biases, got zero"):
        ratios(torch.zeros(5, 4), torch.zeros(5), count)
