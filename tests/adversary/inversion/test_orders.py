import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks import joint_solution
from adversary.attacks.joint import joint as joint_attack
from adversary.inversion import assignments, joint
from adversary.inversion.assignments import Assignment, Uploads
from adversary.inversion.local_steps import flat, one_hot, shared, simulated
from adversary.inversion.orders import Uses
from adversary.inversion.problems import problem_of
from clients.train import train
from fedsim.core.errors import Remark, remarks_of_attacks
from fedsim.core.params import subtract
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Estimate, LocalTraining
from tests.adversary.inversion.inversion_cases import CLASSES, images, net, psnr
from tests.builders import observe


def victim(count, local, labels, seed=3):
    """Return a client's view, the adversary, the examples and the order that it used them in."""
    model = net(nn.Flatten(), nn.Linear(16, 30), nn.Sigmoid(), nn.Linear(30, CLASSES))
    x = images(count, 1, 4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after, used = train(copy.deepcopy(model), before, x, labels, local, generator=generator(seed))
    view = observe(subtract(after, before), count, sent=model, local=local)
    return view, Auxiliary(model, CLASSES, input_shape=(1, 4, 4)), x, used


def order_of(used, uses):
    """Return as zeros and ones where each example was used."""
    order = torch.zeros(uses.local.epochs, len(uses.sizes), uses.count).double()
    for epoch, places in enumerate(used.split(uses.count)):
        for step, batch in enumerate(places.split(uses.local.batch_size)):
            order[epoch, step, batch] = 1
    return order


def nearest(guess, x):
    return max(psnr(guess[list(order)], x) for order in itertools.permutations(range(len(x))))


@pytest.mark.parametrize("more", [{}, {"momentum": 0.5}, {"proximal_mu": 0.3}])
def test_an_order_gives_what_a_client_uploads_that_used_it(more):
    local = LocalTraining(lr=0.5, batch_size=2, epochs=2, label_smoothing=0.1, **more)
    labels = torch.tensor([0, 3, 1, 3, 2])
    view, known, x, used = victim(5, local, labels)
    problem, uses = problem_of(view.latest, known), Uses(5, local)
    order = order_of(used, uses)
    targets = one_hot(labels, CLASSES, torch.float64)[None]
    upload = flat(shared(problem.model, x[None], targets, uses.shares(order)[None], local))
    torch.testing.assert_close(upload / problem.unit, problem.observed)
    one = simulated(problem.model, x[None], targets, local)
    assert not torch.allclose(flat(one) / problem.unit, problem.observed)


@pytest.mark.parametrize(("count", "size"), [(2, 1), (4, 2), (5, 2), (3, 1), (2, 2)])
def test_orders_use_each_example_once_an_epoch_and_those_nearby_exchange_two(count, size):
    uses = Uses(count, LocalTraining(lr=1.0, batch_size=size, epochs=3))
    order = uses.drawn(generator(0))
    nearby = uses.nearby(order)
    assert len(nearby) == 3 * {(2, 1): 1, (4, 2): 4, (5, 2): 8, (3, 1): 3, (2, 2): 0}[count, size]
    for way in (*order, *(way for _, way in nearby)):
        torch.testing.assert_close(way.sum(dim=0), torch.ones(count).double())
        torch.testing.assert_close(way.sum(dim=1), uses.sizes)
    for epoch, way in nearby:
        assert int((way != order[epoch]).any(dim=0).sum()) == 2


def test_assignments_nearby_change_one_label_or_exchange_in_two_epochs_at_most():
    local, labels = LocalTraining(lr=0.5, batch_size=1, epochs=4), torch.tensor([0, 3])
    view, known, _, _ = victim(2, local, labels)
    uploads = Uploads(problem_of(view.latest, known), Uses(2, local))
    it = Assignment(labels, uploads.uses.drawn(generator(0)))
    others = uploads.nearby(it, generator(0))
    assert len(others) == 4 + 6 + 2 * (CLASSES - 1)
    changed = [
        (int((o.labels != labels).sum()), int((o.order != it.order).flatten(1).any(1).sum()))
        for o in others
    ]
    assert set(changed) == {(0, 1), (0, 2), (1, 0)}


@pytest.mark.parametrize(
    ("count", "size", "epochs", "large"),
    [(2, 1, 10, False), (3, 2, 2, False), (3, 3, 2, False), (2, 1, 3, True)],
)
def test_examples_come_back_whatever_their_labels_and_order(
    count, size, epochs, large, monkeypatch
):
    if large:  # a few directions stand for the Jacobian, steps are conjugate gradients
        monkeypatch.setattr(assignments, "LARGE", 0)
        monkeypatch.setattr(joint, "DENSE", 0)
    local, labels = LocalTraining(lr=0.5, batch_size=size, epochs=epochs), torch.arange(count)
    view, known, x, used = victim(count, local, labels, seed=0)
    orders = order_of(used, Uses(count, local))
    assert size == count or bool((orders != orders[0]).any())
    monkeypatch.setattr(joint_solution, "label_hypotheses", lambda *_, most: labels[None] * 0)
    with pytest.warns(Remark, match="of 4 has the lowest error"):
        guess = joint_attack(view, known, generator(0), steps=15)
    guess = guess.values if isinstance(guess, Estimate) else guess
    assert nearest(guess, x) > 60


def test_another_protocol_than_the_clients_explains_nothing():
    local, labels = LocalTraining(lr=0.5, batch_size=1, epochs=2), torch.tensor([0, 3])
    view, known, _, _ = victim(2, local, labels)
    claimed = replace(view.latest, local=replace(local, epochs=3))
    view = replace(view, observations=(claimed,))
    with remarks_of_attacks() as remarks:
        joint_attack(view, known, generator(0), steps=5)
    assert remarks[-1].startswith("the nearest answer's simulated upload differs by 0.")
    assert remarks[-1].endswith(": the answer is not verified")
