import copy
from dataclasses import replace

import pytest
import torch

from adversary.attacks import ATTACKS
from adversary.attacks.dimitrov import dimitrov
from adversary.attacks.geng import zlg, zlg_plus
from adversary.attacks.ilrg import ilrg
from adversary.attacks.rlu import rlu
from adversary.labels.reading import end_forward, end_state, read_residuals, steps_per_client
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from tests.adversary.label_cases import asr, client, untrained, zero_head
from tests.builders import observe, plain_gradient


def test_the_end_state_of_a_client_and_of_a_cohort():
    sent = {"w": torch.tensor([1.0, 2.0]), "steps": torch.tensor(3)}
    delta = {"w": torch.tensor([4.0, -2.0])}
    local = LocalTraining(lr=0.1, batch_size=1)
    end = end_state(Observation(sent, Update(1, "0", delta, 2), local))
    assert end["w"].tolist() == [5.0, 0.0]
    assert int(end["steps"]) == 3  # a buffer that is not uploaded
    end = end_state(Observation(sent, Update(1, "0", delta, 4, num_clients=2), local))
    assert end["w"].tolist() == [3.0, 1.0]


@pytest.mark.parametrize("upload", ["gradient", "weights"])
def test_a_single_step_has_no_end_state(upload):
    view, auxiliary = untrained([1, 2], upload=upload)
    assert steps_per_client(view.latest) == 1
    assert end_state(view.latest) is None
    assert end_forward(view.latest, workspace(view, auxiliary), auxiliary.inputs) is None


def test_what_the_uploaded_model_computes():
    view, auxiliary = untrained([1, 2], upload="weights", epochs=2)
    model = copy.deepcopy(auxiliary.model)
    model.load_state_dict(end_state(view.latest))
    with torch.no_grad():
        expected = model(auxiliary.inputs)
    there = end_forward(view.latest, workspace(view, auxiliary), auxiliary.inputs)
    torch.testing.assert_close(there.logits, expected)


@pytest.mark.parametrize("attack", [zlg, zlg_plus, dimitrov, ilrg, rlu])
def test_a_model_that_blew_up_is_refused(attack):
    view, auxiliary = untrained([1, 2], upload="weights", epochs=2)
    for value in view.latest.update.delta.values():
        value.fill_(1e30)
    with pytest.raises(ValueError, match="the uploaded model must compute finite numbers"):
        attack(view, auxiliary, generator(0))


@pytest.mark.parametrize(("clients", "steps"), [(1, 6), (3, 2)])
def test_steps_are_those_of_one_client(clients, steps):
    local = LocalTraining(lr=0.1, batch_size=2, epochs=2)
    update = Update(1, "0", {}, 6, num_clients=clients)
    assert steps_per_client(Observation({}, update, local)) == steps


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_smoothing_is_taken_out_of_the_bias(smoothing):
    counts = torch.tensor([4.0, 0.0, 5.0]).double()
    view, auxiliary = untrained([4, 0, 5], label_smoothing=smoothing)
    read = read_residuals(view.latest, workspace(view, auxiliary))
    assert (read.head.total, read.hit, read.direction) == (9, 1 - smoothing, None)
    torch.testing.assert_close(read.sums, 9 / 3 - read.hit * counts, rtol=0, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weighted_row_sums_stand_for_the_bias_of_a_head_without(smoothing):
    # All examples have the same features, so that each weighs 1.
    head = zero_head(2, 3, bias=False)
    inputs, labels = torch.ones(4, 2), torch.tensor([0, 0, 1, 2])
    local = LocalTraining(lr=0.1, batch_size=4, upload="gradient", label_smoothing=smoothing)
    auxiliary = Auxiliary(head, 3, inputs=inputs, labels=labels)
    view = client(head, inputs, labels, local)
    read = read_residuals(view.latest, workspace(view, auxiliary))
    expected = 4 / 3 - read.hit * torch.tensor([2.0, 1.0, 1.0]).double()
    torch.testing.assert_close(read.sums, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(read.weights(inputs), torch.ones(4).double())


def test_features_without_a_mean_stand_for_no_bias():
    head = zero_head(2, 3, bias=False)
    inputs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    auxiliary = Auxiliary(head, 3, inputs=inputs, labels=torch.tensor([0, 1]))
    view = observe(plain_gradient(head, inputs, torch.tensor([0, 1])), 2, sent=head)
    with pytest.raises(NotApplicable, match="features: must have a mean other than 0 .* norm 0"):
        read_residuals(view.latest, workspace(view, auxiliary))


@pytest.mark.parametrize("name", ["llbg", "ilrg", "rlu"])
def test_attacks_on_the_bias_read_a_head_without(name):
    counts = torch.tensor([20, 9, 3, 0])
    view, auxiliary = untrained(counts.tolist(), bias=False)
    guess = ATTACKS[name].infer(view, auxiliary, generator(0))
    uniform = asr(torch.full((4,), 8), counts)
    assert asr(guess, counts) > (1 + uniform) / 2


@pytest.mark.parametrize("name", ["llbg", "ilrg", "rlu", "eb-gls"])
def test_a_bias_that_is_withheld_does_not_count_as_balance(name):
    counts = torch.tensor([20, 9, 3, 0])
    view, auxiliary = untrained(counts.tolist())
    latest = view.latest
    for bias in ("withheld", "frozen"):
        model = copy.deepcopy(auxiliary.model)
        model[2].bias.requires_grad_(bias == "withheld")
        delta = {n: v * (n != "2.bias") for n, v in latest.update.delta.items()}
        shown = View([replace(latest, update=replace(latest.update, delta=delta))])
        guess = ATTACKS[name].infer(shown, replace(auxiliary, model=model), generator(0))
        assert asr(guess, counts) > 0.8
