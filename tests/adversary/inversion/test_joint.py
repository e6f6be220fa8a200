import copy

import pytest
import torch
from torch import nn

from adversary.attacks import joint_solution
from adversary.attacks.joint import joint as joint_attack
from adversary.inversion import joint
from adversary.inversion.joint import gauss_newton, misfit, of_gradient
from clients.train import train
from fedsim.core.errors import NotApplicable, remarks_of_attacks
from fedsim.core.params import subtract
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.inversion.inversion_cases import CLASSES, gradient, images, net, psnr, sent
from tests.builders import observe

LABEL = torch.tensor([2])


def open_net():
    """A net whose second layer leaves its input open, while all layers together do not."""
    return net(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.Tanh(), nn.Conv2d(6, 2, 3, bias=False),
        nn.Tanh(), nn.Flatten(), nn.Linear(2 * 36, CLASSES),
    )  # fmt: skip


def fitted(model, x, labels=LABEL, **options):
    return gauss_newton(seen_of(model, x, labels), torch.full_like(x, 0.5), **options)


def seen_of(model, x, labels=LABEL):
    return of_gradient(model, sent(model), gradient(model, x, labels), labels)


@pytest.mark.parametrize("dense", [0, 1100])
def test_it_finds_the_input_of_a_net_that_no_recursion_walks(dense, monkeypatch):
    monkeypatch.setattr(joint, "DENSE", dense)
    model, x = open_net(), images(1, 1, 8, 8)
    found = fitted(model, x)
    assert found.error < 1e-18
    assert psnr(found.inputs, x) > 90


def pooled_net():
    """A net that ends in global average pooling: its weak directions are far below its strong."""
    return net(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)),
    )


def test_steps_are_solved_whole_where_conjugate_gradients_gain_little(monkeypatch):
    model, x = pooled_net(), images(1, 1, 6, 6)
    monkeypatch.setattr(joint, "DENSE", 0)
    monkeypatch.setattr(joint, "INNER", 8)
    whole = fitted(model, x)
    monkeypatch.setattr(joint, "LARGE", 0)
    short = fitted(model, x)
    assert psnr(whole.inputs, x) > 100
    assert psnr(short.inputs, x) < 60
    assert short.error > 1e3 * whole.error


def test_rounded_gradients_leave_what_their_rounding_leaves():
    model, x = open_net(), images(1, 1, 8, 8)
    seen = {name: g.float().double() for name, g in gradient(model, x, LABEL).items()}
    found = gauss_newton(of_gradient(model, sent(model), seen, LABEL), torch.full_like(x, 0.5))
    assert 50 < psnr(found.inputs, x) < 200


def test_a_batch_is_found_up_to_its_order():
    model = net(nn.Flatten(), nn.Linear(16, 60), nn.Sigmoid(), nn.Linear(60, CLASSES))
    x, labels = images(2, 1, 4, 4), torch.tensor([0, 3])
    start = 0.5 + 0.1 * torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = gauss_newton(seen_of(model, x, labels), start.double())
    assert psnr(found.inputs, x) > 60


def three_epochs(labels, rows, monkeypatch, **options):
    """Return the PSNR of two examples after local steps, and their errors and uncertainty."""
    model = net(nn.Flatten(), nn.Linear(16, 60), nn.Sigmoid(), nn.Linear(60, CLASSES)).float()
    x = images(2, 1, 4, 4).float()
    local = LocalTraining(lr=0.5, batch_size=2, epochs=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after, _ = train(copy.deepcopy(model), before, x, labels, local, generator=generator(0))
    view = observe(subtract(after, before), 2, sent=model, local=local)
    known = Auxiliary(model, CLASSES, input_shape=(1, 4, 4))
    monkeypatch.setattr(joint_solution, "label_hypotheses", lambda *_, most: rows[:most])
    guess = joint_attack(view, known, generator(0), **options)
    order = max(([0, 1], [1, 0]), key=lambda it: psnr(guess.values[it], x))
    return psnr(guess.values[order], x), (guess.values[order] - x, guess.uncertainty[order])


@pytest.mark.parametrize("labels", [[0, 3], [3, 3]])
def test_wrong_labels_of_several_local_steps_are_changed(labels, monkeypatch):
    with remarks_of_attacks() as remarks:
        right, (error, unsure) = three_epochs(
            torch.tensor(labels), torch.tensor([[1, 2]]), monkeypatch
        )
    assert "not verified" not in "; ".join(remarks)
    assert right > 60
    assert 0.2 < float(error.square().mean().sqrt() / unsure.square().mean().sqrt()) < 5


def test_steps_are_shortened_to_the_budget_and_refused_where_too_few_are_left(monkeypatch):
    rows, labels = torch.tensor([[0, 3]]), torch.tensor([0, 3])
    with remarks_of_attacks() as remarks:
        three_epochs(labels, rows, monkeypatch, budget=1e-4)
    assert "budget: 0.0001 is enough for 13 of 40 steps" in remarks
    rule = r"budget: must be at least \S+ for 2 examples and 10 steps as estimated, got 1e-09"
    with pytest.raises(NotApplicable, match=rule):
        three_epochs(labels, rows, monkeypatch, budget=1e-9)


def test_steps_never_make_the_error_larger_and_the_error_is_that_of_the_answer():
    model, x = open_net(), images(1, 1, 8, 8)
    errors = [fitted(model, x, steps=steps).error for steps in (0, 1, 2, 4)]
    assert errors == sorted(errors, reverse=True)
    last = fitted(model, x, steps=4)
    again = misfit(seen_of(model, x), last.inputs)
    assert again == pytest.approx(last.error)


def test_products_with_the_jacobian_are_those_of_the_dense_one():
    model, x = open_net(), images(1, 1, 8, 8)
    parameters = list(model.parameters())

    def residual(at):
        loss = nn.functional.cross_entropy(model(at), LABEL)
        return torch.cat([g.flatten() for g in torch.autograd.grad(
            loss, parameters, create_graph=True)])  # fmt: skip

    at = joint.Linearised(residual, x)
    dense = torch.autograd.functional.jacobian(residual, x).flatten(1)
    v, u = torch.randn(64).double(), torch.randn(len(dense)).double()
    torch.testing.assert_close(at.push(v.view_as(x)), dense @ v)
    torch.testing.assert_close(at.pull(u).flatten(), dense.T @ u)
    torch.testing.assert_close(at.gram(), dense.T @ dense)


def test_a_kinked_net_gives_an_answer_no_worse_than_grey():
    model = net(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, CLASSES))
    x = images(1, 1, 8, 8)
    found = fitted(model, x)
    grey = misfit(seen_of(model, x), torch.full_like(x, 0.5))
    assert found.error < grey
    assert bool(torch.isfinite(found.inputs).all())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_residual_that_is_not_finite_ends_the_search(value):
    found = gauss_newton(lambda x: x.flatten() * value, torch.full((1, 1, 8, 8), 0.5).double())
    assert found.steps == 0
    assert not found.error < 1
