import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from adversary.attacks.rlg import rlg, separable
from fedsim.core.rng import generator
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient


def test_worked_example():
    # The third lies between the first two, the fifth nowhere.
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -0.5], [0.0, 0.0]])
    assert separable(q[[0, 1, 2, 4]].double()).tolist() == [True, True, False, False]
    # The fourth is apart from all, and (0, 1) = 2·(1, 1) + 2·(−1, −1/2).
    assert separable(q.double()).tolist() == [True, False, False, True, False]


@given(st.integers(3, 9), st.integers(1, 4), st.integers(0, 10**6))
def test_the_cone_and_the_papers_linear_program_agree(classes, rank, seed):
    q = torch.randn(classes, rank, generator=generator(seed, "rlg")).double()
    for c, found in enumerate(separable(q)):
        bound = np.zeros(classes)
        bound[c] = 1.0  # keeps the program bounded
        answer = linprog(q[c].numpy(), -q.numpy(), bound, bounds=(None, None), method="highs")
        assert bool(found) == (answer.fun < -0.5)


@pytest.mark.parametrize("activation", [torch.nn.ReLU, torch.nn.Tanh])
@pytest.mark.parametrize("labels", [[4], [7, 7, 7], [0, 9], [1, 1, 3, 8]])
def test_few_labels_are_found(labels, activation):
    stream = generator(1, "rlg")
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 20), activation(), torch.nn.Linear(20, 12, bias=False)
    )
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=stream)
    inputs = torch.randn(len(labels), 4, generator=stream)
    view = observe(plain_gradient(model, inputs, torch.tensor(labels)), len(labels))
    counts = rlg(view, auxiliary_of(model, 12), generator(0))
    assert set(labels) <= set(torch.nonzero(counts)[:, 0].tolist())
    assert int(counts.sum()) == len(labels)


def test_as_many_labels_as_classes_say_nothing_and_evidence_orders_the_rest():
    model = bilinear(5, features=20)
    labels = torch.tensor([2] * 9 + [0] * 3)
    gradient = plain_gradient(model, torch.rand(12, 4), labels)
    counts = rlg(observe(gradient, 12), auxiliary_of(model, 5), generator(0))
    assert sorted(counts.tolist()) == [2, 2, 2, 3, 3]
    assert counts[gradient["2.bias"].argmin()] == 3


@pytest.mark.parametrize("size", [1, 2])
def test_more_classes_found_than_labels(size):
    # A rank of one with two ends: both classes can be separated, and the lower bias is named.
    weight = torch.tensor([[-1.0], [2.0], [0.0], [0.0]])
    view = observe({"weight": weight, "bias": torch.tensor([0.5, 0.1, 0.3, 0.4])}, size)
    counts = rlg(view, auxiliary_of(torch.nn.Linear(1, 4), 4), generator(0))
    assert counts.tolist() == ([0, 1, 0, 0] if size == 1 else [1, 1, 0, 0])
