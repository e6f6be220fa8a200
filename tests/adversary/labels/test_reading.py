import copy

import pytest
import torch

from adversary.attacks.dimitrov import dimitrov
from adversary.attacks.geng import zlg, zlg_plus
from adversary.attacks.ilrg import ilrg
from adversary.attacks.rlu import rlu
from adversary.labels.reading import end_forward, end_state, read_bias, steps_per_client
from adversary.workspace import workspace
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, Observation, Update
from tests.adversary.label_cases import untrained


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
    head, sums, hit = read_bias(view.latest, workspace(view, auxiliary), "an attack")
    assert (head.total, hit) == (9, 1 - smoothing)
    torch.testing.assert_close(sums, 9 / 3 - hit * counts, rtol=0, atol=1e-5)
