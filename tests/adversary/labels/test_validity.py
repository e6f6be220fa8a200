import pytest
import torch
from torch import nn

from adversary.grading import answers
from adversary.labels.validity import LIMIT, validity_number
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import client, unbalanced
from tests.builders import bilinear, observe, random_attack, work_at

INPUTS = torch.tensor([[1.0, 2.0], [3.0, 0.0]])


def test_worked_example():
    # E‖h‖² = (5 + 9)/2 = 7, and one for the bias: 0.25 · 8.
    head = nn.Linear(2, 3)
    auxiliary = Auxiliary(head, 3, inputs=INPUTS, labels=torch.tensor([0, 1]))
    assert validity_number(work_at(auxiliary, head.state_dict(), LocalTraining(0.25, 1))) == 2.0


def test_it_is_how_far_a_step_moves_an_examples_logits():
    head, local = nn.Linear(2, 3).double(), LocalTraining(0.2, 1)
    x, y = INPUTS[:1].double(), torch.tensor([2])
    view = client(head, x, y, local)
    delta = view.latest.update.delta
    with torch.no_grad():
        gradient = head(x).softmax(dim=1)[0] - torch.eye(3).double()[2]
    moved = delta["weight"] @ x[0] + delta["bias"]
    number = validity_number(workspace(view, Auxiliary(head, 3, inputs=x, labels=y)))
    torch.testing.assert_close(moved, -number * gradient)


def test_without_inputs_noise_stands_for_them():
    head = nn.Linear(2, 3)
    auxiliary = Auxiliary(head, 3, input_shape=(2,))
    number = validity_number(work_at(auxiliary, head.state_dict(), LocalTraining(1.0, 1)))
    assert number == pytest.approx(2 / 3 + 1, abs=0.1)  # E x² = 1/3 for x uniform in [0, 1]


def test_beyond_the_limit_a_second_step_answers_the_first():
    # One example again and again: beyond 2 a step goes further than to its target and back.
    head = nn.Linear(2, 2).double()
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    x, y = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([0])
    for lr, overshoots in ((0.1, False), (8.0, True)):
        local = LocalTraining(lr, 1, epochs=2)
        number = validity_number(
            work_at(Auxiliary(head, 2, inputs=x, labels=y), head.state_dict(), local)
        )
        once, twice = (
            client(head, x, y, LocalTraining(lr, 1, epochs=e)).latest.update.delta["bias"][0]
            for e in (1, 2)
        )
        assert (number > LIMIT) == overshoots
        assert (float(twice - once) < 0.5 * float(once)) == overshoots


def test_the_run_measures_it_where_labels_are_attacked_in_uploaded_weights():
    view, auxiliary, _ = unbalanced(LocalTraining(0.1, 8, epochs=2))
    [measure] = answers.validity(view, [random_attack], auxiliary)
    assert (measure.round, measure.metric) == (1, "validity")
    assert measure.value == validity_number(workspace(view, auxiliary))
    gradient, _, _ = unbalanced(LocalTraining(0.1, 8, upload="gradient"))
    assert answers.validity(gradient, [random_attack], auxiliary) == []
    assert answers.validity(view, [], auxiliary) == []


def test_a_model_without_a_head_has_none():
    model = nn.Sequential(bilinear(3), nn.Softmax(dim=1))
    weights = dict(model.state_dict())
    view = observe(weights, 4, local=LocalTraining(0.1, 4), sent=weights)
    auxiliary = Auxiliary(model, 3, input_shape=(4,))
    assert answers.validity(view, [random_attack], auxiliary) == []
