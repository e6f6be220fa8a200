"""The path of the logits; that `simulate` equals training is shown in test_rlu."""

import pytest
import torch
from torch import nn

from adversary.labels.trajectory import Start, followed, path, simulate, start_of
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.builders import bilinear, work_at

LOGITS = torch.randn(9, 3, generator=generator(0, "trajectory")).double()
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
START = Start(LOGITS, LABELS, 5.0)
SHARE = torch.tensor([0.5, 0.5, 0.0]).double()


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_confidence_is_the_mean_probability_of_each_class(moved):
    shift = moved * torch.tensor([1.0, -2.0, 0.5]).double()
    for j, row in enumerate(START.confidence_at(shift)):
        p = (LOGITS[j == LABELS] + shift).softmax(dim=1)
        torch.testing.assert_close(row, p.mean(dim=0))
    # Every example may be moved in its own way.
    own = moved * torch.randn(9, 3, generator=generator(1, "trajectory")).double()
    first = (LOGITS + own)[:4].softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(START.confidence_at(own)[0], first)


def test_what_the_model_sent_makes_of_the_auxiliary_data():
    model, inputs = bilinear(3), torch.rand(9, 4)
    start = start_of(work_at(Auxiliary(model, 3, inputs=inputs, labels=LABELS), model.state_dict()))
    with torch.no_grad():
        h = nn.Sequential(*list(model.children())[:2])(inputs)
        torch.testing.assert_close(start.logits, model(inputs).double())
    assert start.reach == pytest.approx(float(h.square().sum(1).mean()) + 1)


def test_worked_example_of_one_step():
    # Even predictions: the mean gradient is 1/3 − share, and the logits move by −lr·5 times that.
    even = Start(torch.zeros(3, 3).double(), torch.arange(3), 5.0)
    local = LocalTraining(0.1, 1)
    shifts = simulate(even, SHARE, local, 1)
    expected = -0.5 * torch.tensor([-1 / 6, -1 / 6, 1 / 3]).double()
    torch.testing.assert_close(shifts, torch.stack([torch.zeros(3).double(), expected]))
    # Smoothing by 0.3 leaves 0.7 of it.
    smooth = simulate(even, SHARE, LocalTraining(0.1, 1, label_smoothing=0.3), 1)
    torch.testing.assert_close(smooth, 0.7 * shifts)


def test_momentum_goes_on_and_proximal_pull_goes_back():
    plain, momentum, pulled = (
        simulate(START, SHARE, LocalTraining(0.01, 1, **form), 30)
        for form in ({}, {"momentum": 0.9}, {"proximal_mu": 20.0})
    )
    assert torch.equal(plain[:2], momentum[:2])  # from rest
    far = [float(shifts[-1].norm()) for shifts in (pulled, plain, momentum)]
    assert far == sorted(far)
    assert far[2] > 2 * far[0]


def test_the_path_bends_as_simulated_and_ends_where_the_model_does():
    shifts = torch.tensor([[0.0, 0.0], [2.0, -2.0], [3.0, -3.0]]).double()
    moved = torch.tensor([[4.0, -2.0], [3.0, -3.0]]).double()
    along = path(shifts, moved, 10)
    assert [way for way, _ in along] == [0.0, 0.5]
    # What is missed of the end, (1, 1) and (0, 0), is added by halves.
    assert along[0][1].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert along[1][1].tolist() == [[2.5, -1.5], [2.0, -2.0]]


@pytest.mark.parametrize(
    ("steps", "points", "at"),
    [(1, 8, [0]), (5, 8, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (100, 2, [0, 99])],
)
def test_few_points_are_spread_evenly(steps, points, at):
    shifts = torch.arange(steps + 1).double().unsqueeze(1).expand(-1, 2)
    along = path(shifts, shifts[-1:], points)
    assert [way * steps for way, _ in along] == pytest.approx(at)
    assert [float(shift[0, 0]) for _, shift in along] == pytest.approx(at)


def test_few_auxiliary_examples_are_all_followed():
    assert followed(torch.arange(2000) % 10, torch.full((10,), 0.1).double()) is None


def test_classes_are_followed_as_often_as_the_client_seems_to_have_them():
    labels = torch.arange(4000) % 10
    share = torch.tensor([0.5, 0.15, 0.15, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]).double()
    rows = followed(labels, share)
    # 400 a class are known; of 2,000 examples at least 40 are of each class.
    assert torch.bincount(labels[rows]).tolist() == [400, 300, 300, 200, 200] + [40] * 5
    assert torch.equal(rows, rows.unique())


def test_a_start_of_some_rows():
    start = Start(torch.arange(12.0).view(4, 3).double(), torch.tensor([0, 1, 2, 1]), 2.0)
    some = start.of(torch.tensor([1, 3]))
    assert torch.equal(some.logits, start.logits[[1, 3]])
    assert some.labels.tolist() == [1, 1]
    assert start.of(None) is start
