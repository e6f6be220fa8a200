import itertools
import math

import pytest
import torch
from torch import nn

from adversary.inversion.relu_batch import Limits, UnfinishedError, batch, expected_draws
from fedsim.core.rng import generator
from tests.adversary.inversion.inversion_cases import CLASSES, gradient, images, net, psnr, sent

FEATURES = 60


def beside(values):
    """Return a first layer's weights and, as the last column, its biases."""
    return torch.cat([values["0.weight"], values["0.bias"][:, None]], dim=1)


def seen(x, *, units=200, seed=0, dtype=torch.float64, activation=nn.ReLU):
    """Return what a server sees of a batch: the first layer's gradient, and W."""
    model = net(
        nn.Linear(x.shape[1], units), activation(), nn.Linear(units, CLASSES), seed=seed
    )  # fmt: skip
    labels = torch.randint(CLASSES, (len(x),), generator=generator(seed, "labels"))
    received = {name: g.to(dtype).double() for name, g in gradient(model, x, labels).items()}
    return beside(received), beside(sent(model))


def records(count, seed=0):
    return torch.randn(count, FEATURES, generator=generator(seed, "records"), dtype=torch.float64)


def pictures(count, seed=0):
    return images(count, 3, 12, 12, seed=seed).flatten(1)


def worst(answer, x):
    """Return the dB of the record that came out worst."""
    assert answer.inputs.shape == x.shape
    return min(max(psnr(one, true) for one in answer.inputs) for true in x)


@pytest.mark.parametrize("make", [records, pictures])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 200), (torch.float32, 80)])
def test_the_whole_batch_is_recovered(make, count, dtype, least):
    x = make(count, seed=count)
    answer = batch(*seen(x, seed=count, dtype=dtype), count, generator(0, "spear"))
    assert worst(answer, x) > least


def test_thirty_two_pictures_take_some_draws_each_where_any_rows_would_take_millions():
    x = pictures(32)
    received, weight = seen(x, units=400)
    answer = batch(received, weight, 32, generator(0, "spear"))
    assert worst(answer, x) > 150
    alive = (answer.slopes != 0).any(dim=1)
    inactive = (answer.slopes[alive] == 0).sum(dim=0)
    assert expected_draws(inactive, int(alive.sum())) > 1e6 > 100 * answer.draws


@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 150), (torch.float32, 80)])
def test_a_learned_dictionary_takes_a_batch_apart_in_some_starts_each(dtype, least):
    x = pictures(16)
    received, weight = seen(x, units=300, dtype=dtype)
    answer = batch(received, weight, 16, generator(0), learn=True)
    assert worst(answer, x) > least
    assert answer.draws < 20 * 16


def test_a_dictionary_of_few_units_is_completed_by_draws():
    x = records(10)
    answer = batch(*seen(x, units=60), 10, generator(0), learn=True)
    assert worst(answer, x) > 150


def test_slopes_are_zero_where_inputs_are_inactive_and_make_up_the_gradient():
    x = pictures(5)
    received, weight = seen(x)
    answer = batch(received, weight, 5, generator(0, "spear"))
    ones = torch.cat([answer.inputs, torch.ones(5, 1)], dim=1)
    outputs = weight @ ones.T
    assert torch.equal(answer.slopes != 0, (outputs > 0) & received.any(dim=1)[:, None])
    torch.testing.assert_close(answer.slopes @ ones, received, rtol=1e-8, atol=1e-12)


def test_of_a_dense_gradient_or_of_other_weights_nothing_is_returned():
    x = records(3)
    dense, weight = seen(x, units=80, activation=nn.Tanh)
    with pytest.raises(UnfinishedError, match="search: . of 3 examples' zeros in .* draws"):
        batch(dense, weight, 3, generator(0))
    with pytest.raises(UnfinishedError, match="search: . of 3 examples' zeros in .* draws"):
        batch(dense, weight, 3, generator(0), limits=Limits(draws=50), learn=True)
    with pytest.raises(UnfinishedError, match="draws and 1e-09 CPU-seconds; the others"):
        batch(dense, weight, 3, generator(0), limits=Limits(seconds=1e-9))
    received, weight = seen(x, units=80)
    moved = weight + torch.tensor([0.0] * FEATURES + [5.0])
    with pytest.raises(UnfinishedError, match="search: . of 3 examples' zeros"):
        batch(received, moved, 3, generator(0))


@pytest.mark.parametrize("told", [3, 5])
def test_a_wrong_number_of_records_is_refused(told):
    received, weight = seen(records(4), units=80)
    with pytest.raises(ValueError, match=f"must have rank {told}, one per example, got 4"):
        batch(received, weight, told, generator(0))


def test_an_unfinished_search_goes_on_from_what_it_had():
    x = pictures(32)
    received, weight = seen(x, units=400)
    with pytest.raises(UnfinishedError, match="of 100 allowed") as stopped:
        batch(received, weight, 32, generator(0), limits=Limits(draws=100))
    unfinished = stopped.value
    assert 0 < len(unfinished.inactive) < 31
    assert unfinished.draws >= 100
    earlier = unfinished.inactive, unfinished.draws
    answer = batch(received, weight, 32, generator(1), earlier=earlier)
    assert worst(answer, x) > 150
    assert answer.draws > unfinished.draws


def test_the_same_seed_gives_the_same_batch():
    received, weight = seen(pictures(6))
    first, second = (batch(received, weight, 6, generator(3)) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)


def test_expected_draws_are_those_of_all_choices_of_rows():
    zeros = torch.tensor([[1, 1, 1, 0, 0, 1], [0, 1, 1, 1, 1, 0], [1, 0, 0, 1, 1, 1]], dtype=bool)
    pairs = list(itertools.combinations(range(6), 2))
    chance = [sum(bool(z[[*p]].all()) for p in pairs) / len(pairs) for z in zeros]
    want = sum(
        (-1) ** (size + 1) / sum(some)
        for size in (1, 2, 3)
        for some in itertools.combinations(chance, size)
    )
    assert expected_draws(zeros.sum(dim=1), 6) == pytest.approx(want, rel=1e-3)
    assert expected_draws(torch.tensor([1, 4, 4]), 6) == math.inf
    assert expected_draws(torch.tensor([0]), 6) == 0


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (torch.zeros(50, 20), "units must be active, got 0"),
        (torch.ones(50, 20), "biases must not cancel|must have rank 3"),
        (torch.randn(50, 20, generator=generator(0)), "must have rank .* none that stands out"),
    ],
)
def test_odd_gradients_are_one_sentence(weights, reason, count):
    received = torch.cat([weights, torch.zeros(50, 1)], dim=1).double()
    with pytest.raises(ValueError, match=reason):
        batch(received, torch.ones(50, 21).double(), count, generator(0))


def test_no_examples_are_refused():
    received, weight = seen(records(2))
    with pytest.raises(ValueError, match="num_examples: must be at least 1, got 0"):
        batch(received, weight, 0, generator(0))
