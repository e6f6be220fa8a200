import pytest
import torch

from adversary.attacks.grad_inversion import grad_inversion
from fedsim.core.rng import generator
from tests.adversary.label_cases import zero_head
from tests.builders import auxiliary_of, observe, plain_gradient

# Sums say that class 1 is there (−1), minima that class 0 is (−4).
WEIGHT = torch.tensor([[-4.0, 4.0, 1.0], [-1.0, -1.0, 1.0], [2.0, -2.0, 3.0], [1.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, [1, 0, 0, 0]), (2, [1, 0, 1, 0]), (3, [1, 1, 1, 0]), (6, [2, 1, 2, 1])],
)
def test_worked_example(size, expected):
    head = torch.nn.Linear(3, 4)
    view = observe({"weight": WEIGHT, "bias": torch.zeros(4)}, size)
    assert grad_inversion(view, auxiliary_of(head, 4), generator(0)).tolist() == expected


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("labels", [[2], [5, 0], [1, 3, 4, 6]])
def test_distinct_labels_with_features_of_their_own_are_found(labels, bias):
    head = zero_head(8, 7, bias=bias)
    features = 0.01 + torch.eye(8)[: len(labels)]
    view = observe(plain_gradient(head, features, torch.tensor(labels)), len(labels))
    counts = grad_inversion(view, auxiliary_of(head, 7), generator(0))
    assert torch.nonzero(counts)[:, 0].tolist() == sorted(labels)
