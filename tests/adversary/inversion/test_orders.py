import copy
import itertools

import pytest
import torch
from torch import nn

from adversary.attacks import joint as attack
from adversary.inversion.local_steps import flat, one_hot, shared, simulated
from adversary.inversion.orders import Uses, any_order
from adversary.inversion.problems import problem_of
from clients.train import train
from fedsim.core.errors import Remark
from fedsim.core.params import subtract
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
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


@pytest.mark.parametrize(("count", "size"), [(2, 1), (4, 2), (5, 2), (3, 1)])
def test_free_numbers_keep_the_sizes_of_steps_and_each_example_once_an_epoch(count, size):
    uses = Uses(count, LocalTraining(lr=1.0, batch_size=size, epochs=3))
    drawn = torch.rand(len(uses.even()), generator=generator(0)).double()
    for free in (uses.even(), drawn):
        filled = uses.filled(free)
        torch.testing.assert_close(filled.sum(dim=1), torch.ones(3, count).double())
        torch.testing.assert_close(filled.sum(dim=2), uses.sizes.expand(3, -1))
    assert bool((uses.filled(uses.even()).std(dim=2) < 1e-12).all())


def test_the_nearest_order_of_an_order_is_itself_and_of_uses_near_it():
    uses = Uses(4, LocalTraining(lr=1.0, batch_size=2, epochs=2))
    for order in uses.neighbours(uses.nearest(uses.filled(uses.even()))):
        noise = 0.4 * torch.rand(order.shape, generator=generator(1)).double()
        torch.testing.assert_close(uses.nearest(order + noise), order)


@pytest.mark.parametrize(
    ("count", "size", "epochs", "expected"),
    [(2, 1, 3, 2**3), (4, 2, 2, 6**2), (4, 2, 5, 5 * 6), (6, 1, 2, 2 * 15), (60, 10, 3, 600)],
)
def test_neighbours_are_all_orders_where_few_and_else_differ_in_one_epoch(
    count, size, epochs, expected
):
    uses = Uses(count, LocalTraining(lr=1.0, batch_size=size, epochs=epochs))
    order = uses.nearest(uses.filled(uses.even()))
    others = uses.neighbours(order)
    assert len(others) == expected
    for other in others:
        torch.testing.assert_close(other.sum(dim=1), torch.ones(epochs, count).double())
        torch.testing.assert_close(other.sum(dim=2), uses.sizes.expand(epochs, -1))
    if expected not in (2**3, 6**2):
        assert all(int((it != order).any(dim=2).any(dim=1).sum()) <= 1 for it in others)


@pytest.mark.parametrize(("count", "size", "epochs"), [(2, 1, 3), (3, 2, 2)])
def test_batches_smaller_than_the_data_come_back(count, size, epochs, monkeypatch):
    local = LocalTraining(lr=0.5, batch_size=size, epochs=epochs)
    labels = torch.arange(count)
    view, known, x, used = victim(count, local, labels, seed=0)
    orders = order_of(used, Uses(count, local))
    assert bool((orders != orders[0]).any())
    rows = torch.stack([labels.flip(0) * 0, labels])
    monkeypatch.setattr(attack, "label_hypotheses", lambda *_, most: rows[:most])
    with pytest.warns(Remark, match="hypothesis 2 of 2 has the lowest error"):
        guess = attack.joint(view, known, generator(0), steps=15)
    assert nearest(guess, x) > 80


def test_wrong_labels_explain_nothing():
    local, labels = LocalTraining(lr=0.5, batch_size=1, epochs=2), torch.tensor([0, 3])
    view, known, x, _ = victim(2, local, labels)
    start = lambda: 0.5 + 0.1 * torch.randn(x.shape, generator=generator(0)).double()
    fit, place = any_order(
        problem_of(view.latest, known),
        torch.tensor([[1, 2]]),
        start,
        steps=8,
        restarts=1,
        enough=1e-8,
    )
    assert place == 0
    assert fit.error > 1e-4
