"""Canaries: how far a record moves an update, by hand; a crafted one is worse than a real one."""

import math
from functools import lru_cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.auditing.canaries import (
    Coordinate,
    average,
    canife,
    coordinates_of,
    free,
    in_domain,
    natural,
    stand_in,
)
from adversary.auditing.sensitivity import Question
from fedsim.core.params import random_direction
from fedsim.core.rng import global_stream
from fedsim.core.secrets import Encoding
from fedsim.data.types import Attribute, Dataset

CLIP = 0.5


def table(count=80):
    """Two numbers, then a colour of three and a sex of two, one-hot."""
    stream = torch.Generator().manual_seed(0)
    numbers = torch.randn(count, 2, generator=stream)
    colour = torch.randint(3, (count,), generator=stream)
    sex = torch.randint(2, (count,), generator=stream)
    inputs = torch.cat([numbers, torch.eye(3)[colour], torch.eye(2)[sex]], dim=1)
    labels = (numbers[:, 0] + sex > 0.5).long()
    attributes = {
        "colour": Attribute((2, 3, 4), ("red", "green", "blue"), torch.eye(3)),
        "sex": Attribute((5, 6), ("f", "m"), torch.eye(2)),
    }
    return Dataset(
        inputs=inputs,
        labels=labels,
        test_inputs=inputs[:5],
        test_labels=labels[:5],
        num_classes=2,
        columns={},
        attributes=attributes,
    )


def network():
    with global_stream(0, "canaries"):
        return nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 2))


def question(*, clip=CLIP, attribute=True):
    model = network()
    codes = torch.eye(2)
    encoding = Encoding(torch.tensor([5, 6]), codes[0], codes[1]) if attribute else None
    return Question(model, model.state_dict(), clip, encoding)


@lru_cache
def worst_in_domain():
    """Return the worst record of the table's domain, by two ascents."""
    data = table()
    return in_domain(question(), data.inputs, data.labels, coordinates_of(data, "sex"), 2)


def gradient(model, x, y):
    loss = functional.cross_entropy(model(x[None]), torch.tensor([int(y)]))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def clipped(g, clip):
    return g * min(1.0, clip / float(g.norm()))


def test_how_far_a_record_moves_an_update_by_hand():
    asked, data, model = question(), table(), network()
    found = asked.apart(data.inputs, data.labels)
    for place in range(0, 80, 7):
        sides = []
        for value in (0, 1):
            x = data.inputs[place].clone()
            x[5:] = torch.eye(2)[value]
            sides.append(clipped(gradient(model, x, data.labels[place]), CLIP))
        assert float(found[place]) == pytest.approx(float((sides[1] - sides[0]).norm()), rel=1e-4)
    there = question(attribute=False).apart(data.inputs, data.labels)
    own = [
        clipped(gradient(model, x, y), CLIP).norm()
        for x, y in zip(data.inputs, data.labels, strict=True)
    ]
    torch.testing.assert_close(there, torch.stack(own), rtol=1e-4, atol=1e-6)
    assert float(found.max()) <= 2 * CLIP * (1 + 1e-6)


def test_the_slope_is_that_of_the_distance():
    asked, data = question(clip=10.0), table()
    values, slopes = asked.climb(data.inputs[:4], data.labels[:4])
    step = torch.zeros(7)
    step[1] = 1e-2
    ahead, behind = (asked.apart(data.inputs[:4] + s * step, data.labels[:4]) for s in (1, -1))
    torch.testing.assert_close(slopes[:, 1], (ahead - behind) / 2e-2, rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(values, asked.apart(data.inputs[:4], data.labels[:4]))
    torch.testing.assert_close(slopes[:, 5:], torch.zeros(4, 2))  # the attribute means nothing


@pytest.mark.slow
@pytest.mark.worked
def test_the_order_of_canaries():
    asked, data = question(), table()
    worst = natural(asked, data.inputs, data.labels)
    usual = average(asked, data.inputs, data.labels)
    domain = worst_in_domain()
    anywhere = free(asked, data.inputs, data.labels, 2)
    assert worst.mean < worst.apart <= domain.apart
    assert usual.apart == pytest.approx(worst.mean, rel=0.1)
    assert worst.apart <= anywhere.apart
    for one in (worst, domain, anywhere):
        assert one.apart <= 2 * CLIP * (1 + 1e-6)
        again = asked.apart(one.inputs[None], one.label[None])
        assert float(again) == pytest.approx(one.apart, rel=1e-5)


@pytest.mark.slow
@pytest.mark.worked
def test_without_a_clip_the_ascent_goes_on():
    asked, data = question(clip=math.inf), table()
    worst = natural(asked, data.inputs, data.labels)
    assert free(asked, data.inputs, data.labels, 2).apart > 1.05 * worst.apart


def test_what_is_in_the_domain_is_a_valid_record():
    data = table()
    one = worst_in_domain()
    assert one.inputs[2:5].sum() == 1
    assert set(one.inputs[2:5].tolist()) == {0.0, 1.0}
    low, high = data.inputs[:, :2].amin(dim=0), data.inputs[:, :2].amax(dim=0)
    assert bool(((one.inputs[:2] >= low - 1e-6) & (one.inputs[:2] <= high + 1e-6)).all())


def test_no_single_change_of_a_column_helps_any_more():
    asked, data = question(), table()
    columns = coordinates_of(data, "sex")
    one = worst_in_domain()
    for coordinate in columns:
        for choice in coordinate.choices:
            x = one.inputs.clone()
            x[coordinate.columns] = choice
            found = float(asked.apart(x[None], one.label[None]))
            assert found <= one.apart * (1 + 1e-5)


def test_the_columns_of_a_table():
    found = coordinates_of(table(), "sex")
    sizes = [(one.columns.tolist(), len(one.choices)) for one in found]
    assert sizes == [([2, 3, 4], 3), ([0], 21), ([1], 21)]
    assert isinstance(found[0], Coordinate)
    pictures = Dataset(
        inputs=torch.zeros(2, 1, 4, 4),
        labels=torch.zeros(2).long(),
        test_inputs=torch.zeros(1, 1, 4, 4),
        test_labels=torch.zeros(1).long(),
        num_classes=2,
    )
    with pytest.raises(ValueError, match="canary: must not be 'in-domain' for data without"):
        coordinates_of(pictures, None)


def test_a_canife_sample_stands_clear_of_other_records():
    asked, data = question(attribute=False), table()
    worst = natural(asked, data.inputs, data.labels)
    one = canife(asked, data.inputs, data.labels, 2, torch.Generator().manual_seed(0))
    others = asked.gradients(data.inputs, data.labels)

    def overlap(canary):
        own = asked.gradients(canary.inputs[None], canary.label[None])[0]
        return float(functional.cosine_similarity(others, own[None]).square().mean())

    assert overlap(one) < overlap(worst) / 2
    assert one.apart == pytest.approx(CLIP, rel=0.01)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_stand_in_has_the_gradient_that_was_chosen(sign):
    model = network()
    like = {name: value.detach() for name, value in model.named_parameters()}
    direction = random_direction(like, torch.Generator().manual_seed(3))
    length = math.sqrt(sum(float(value.square().sum()) for value in direction.values()))
    assert length == pytest.approx(1.0, rel=1e-5)
    double = stand_in(model, direction, 30.0)
    assert list(double.state_dict()) == list(model.state_dict())
    inputs = torch.zeros(3, 7)
    inputs[1, 0] = sign
    question_ = Question(double, double.state_dict(), math.inf)
    found = question_.gradients(inputs, torch.zeros(3, dtype=torch.int64))
    flat = torch.cat([value.flatten() for value in direction.values()])
    torch.testing.assert_close(found[1], -sign * 30.0 * flat, rtol=1e-4, atol=1e-4)
    assert not found[[0, 2]].any()
