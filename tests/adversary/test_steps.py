import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.steps import MOST_STEPS, mean_weight, num_labels, num_steps
from fedsim.core.sgd import descend
from fedsim.core.types import LocalTraining, Observation, Update

FORMS = [
    {},
    {"momentum": 0.9},
    {"proximal_mu": 2.0},
    {"momentum": 0.5, "proximal_mu": 3.0},
]


def observed(local, num_examples, clients=1):
    return Observation({}, Update(1, "0", {}, num_examples, num_clients=clients), local)


@given(
    st.integers(1, 60),
    st.floats(0, 0.99),
    st.floats(0, 5),
    st.floats(1e-3, 0.2),
)
def test_the_weight_of_a_step_is_what_training_on_a_constant_gradient_does(steps, beta, mu, lr):
    local = LocalTraining(lr, 1, momentum=beta, proximal_mu=mu)
    w = velocity = 0.0
    for _ in range(steps):
        velocity = beta * velocity + 1.0 + mu * w
        w -= lr * velocity
    assert mean_weight(local, steps) == pytest.approx(-w / lr / steps, rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_torchs_sgd_does_and_what_clients_do(form):
    gradient, steps = torch.tensor([1.0, -2.0, 0.5]).double(), 7
    local = LocalTraining(0.1, 1, **form)
    theirs = torch.nn.Parameter(torch.ones(3).double())
    optimiser = torch.optim.SGD([theirs], lr=0.1, momentum=local.momentum)
    for _ in range(steps):
        optimiser.zero_grad()
        pull = local.proximal_mu / 2 * (theirs - 1).square().sum()
        (theirs @ gradient + pull).backward()
        optimiser.step()
    ours = torch.ones(3).double()
    descend([ours], local, [torch.tensor([0])] * steps, lambda _: [gradient])
    expected = 1 - 0.1 * steps * mean_weight(local, steps) * gradient
    torch.testing.assert_close(theirs.detach(), expected)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("steps", "weight"), [(1, 1.0), (2, 1.25), (3, 4.25 / 3)])
def test_worked_example(steps, weight):
    # Half of every gradient goes on: 1, then 1 + ½, then 1 + ½ + ¼.
    assert mean_weight(LocalTraining(0.1, 1, momentum=0.5), steps) == weight
    assert mean_weight(LocalTraining(0.1, 1), steps) == 1.0


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "epochs", "clients", "steps"),
    [
        (8, 4, 1, 1, 2),
        (9, 4, 1, 1, 3),  # the last batch has one example
        (9, 4, 5, 1, 15),
        (3, 64, 2, 1, 2),
        (16, 4, 1, 2, 4),  # two clients with eight each
        (18, 4, 3, 2, 18),  # two with nine each
        (17, 4, 1, 2, 6),  # nine and eight, taken for nine each
    ],
)
def test_steps_of_uploaded_weights(num_examples, batch_size, epochs, clients, steps):
    local = LocalTraining(0.1, batch_size, epochs)
    observation = observed(local, num_examples, clients)
    assert num_steps(observation) == steps
    assert num_labels(observation) == num_examples * epochs


@pytest.mark.parametrize("clients", [1, 5])
def test_a_gradient_is_one_step_of_each_client(clients):
    local = LocalTraining(0.1, 4, upload="gradient")
    assert num_steps(observed(local, 20, clients)) == clients
    assert num_labels(observed(local, 20, clients)) == 20


def test_a_number_of_examples_must_be_told():
    observation = observed(LocalTraining(0.1, 4), None)
    for count in (num_labels, num_steps):
        with pytest.raises(ValueError, match="num_examples: must be told by the client, got none"):
            count(observation)


def test_a_claim_of_more_steps_than_anybody_simulates_is_refused():
    local = LocalTraining(0.1, 10)
    assert num_steps(observed(local, 10 * MOST_STEPS)) == MOST_STEPS
    with pytest.raises(ValueError, match=r"few enough for 100000 local steps, got 1000000000 for"):
        num_steps(observed(local, 10**9))
    gradient = LocalTraining(0.1, 10, upload="gradient")
    assert num_steps(observed(gradient, 10**9)) == 1
