import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.attacks.geng import zlg, zlg_plus
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import (
    asr,
    client,
    hand,
    unbalanced,
    zero_head,
)
from tests.builders import observe


def constant_features(num_classes):
    """A model whose features are 1 for every input, and whose head is untrained."""
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.ones_(layer.bias)
    return torch.nn.Sequential(layer, torch.nn.ReLU(), zero_head(2, num_classes))


def test_worked_example():
    # p̄ = 1/3, Ō = 2, summed g = (−4/3, 2/3, 2/3): n = 4/3 − g/2 = (2, 1, 1).
    view, auxiliary = hand("A")
    assert zlg_plus(view, auxiliary, generator(0)).tolist() == [2, 1, 1]
    # With Ō = 1/2 it would be (4, 0, 0).
    other = Auxiliary(auxiliary.model, 3, inputs=torch.full((1, 2), 0.25))
    assert zlg_plus(view, other, generator(0)).tolist() == [4, 0, 0]


def test_row_sums_that_cancel_say_nothing():
    view, auxiliary = hand("B")
    assert sorted(zlg_plus(view, auxiliary, generator(0)).tolist()) == [1, 1, 2]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any),
    st.sampled_from([0.0, 0.3]),
)
def test_constant_features_of_an_untrained_model_give_the_counts(counts, smoothing):
    model = constant_features(len(counts))
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    inputs = torch.rand(len(labels), 3)
    local = LocalTraining(0.1, len(labels), upload="gradient", label_smoothing=smoothing)
    view = client(model, inputs, labels, local)
    without = Auxiliary(model, len(counts), input_shape=(3,))
    assert zlg(view, without, generator(0)).tolist() == counts
    auxiliary = Auxiliary(model, len(counts), inputs=inputs)  # no labels are needed
    assert zlg_plus(view, auxiliary, generator(0)).tolist() == counts


def test_features_that_sum_to_nothing_leave_the_probabilities():
    head = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.75, 0.25]).log()
    gradient = {"weight": torch.rand(2, 2), "bias": torch.zeros(2)}
    auxiliary = Auxiliary(head, 2, inputs=torch.tensor([[1.0, -1.0]]))
    view = observe(gradient, 8, sent=head)
    assert zlg_plus(view, auxiliary, generator(0)).tolist() == [6, 2]


@pytest.mark.parametrize("attack", [zlg, zlg_plus])
def test_several_local_steps(attack):
    view, auxiliary, counts = unbalanced(LocalTraining(lr=0.05, batch_size=8, epochs=2))
    guess = attack(view, auxiliary, generator(0))
    assert int(guess.sum()) == 80
    assert asr(guess, counts) > 0.6
