import pytest
import torch

from adversary.inversion import systems
from adversary.inversion.affine import smoothest
from adversary.inversion.operators import Image, least_squares
from adversary.inversion.solutions import solve
from tests.adversary.inversion.inversion_cases import psnr
from tests.adversary.inversion.test_systems import SHAPES, system

OPEN = (3, 3, 4, 2, 0, 1, (16, 16))


@pytest.fixture
def by_products(monkeypatch):
    """No system is solved densely."""
    monkeypatch.setattr(systems, "DENSE", 0)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("known", [None, 0.6])
def test_products_are_those_of_the_dense_matrix(case, known):
    made, x = system(case, known=known)
    rows, probe = made.rows(), torch.randn_like(x)
    image = made.operator.forward(probe)
    out = image.out.flatten() if known is None else image.out[made.operator.mask]
    num_outputs = len(out)
    torch.testing.assert_close(out, rows[:num_outputs] @ probe.flatten())
    gradient = made.operator.grad_out.norm() / made.grad_out.norm() / made.scale
    by_gradient = (rows[num_outputs:] @ probe.flatten()) * gradient
    torch.testing.assert_close(image.gradient.norm(), by_gradient.norm())
    exact = made.operator.forward(x)
    torch.testing.assert_close(exact.out, made.target.out)
    torch.testing.assert_close(exact.gradient, made.target.gradient)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("known", [None, 0.6])
def test_the_adjoint_is_the_transpose(case, known):
    made, x = system(case, known=known)
    operator = made.operator
    other = Image(*(torch.randn_like(part) for part in operator.forward(x)))
    image = operator.forward(x)
    inner = (image.out * other.out).sum() + (image.gradient * other.gradient).sum()
    torch.testing.assert_close(inner, (x * operator.adjoint(other)).sum())


@pytest.mark.parametrize("case", SHAPES)
def test_both_ways_give_the_same_point(case, monkeypatch):
    made, _ = system(case)
    dense = solve(made, centre=0.5)
    monkeypatch.setattr(systems, "DENSE", 0)
    free = solve(made, centre=0.5)
    torch.testing.assert_close(free.point, dense.point, rtol=0, atol=1e-7)
    assert free.determined == dense.determined
    assert made.residual(free.point) < 1e-9


@pytest.mark.usefixtures("by_products")
def test_the_nearest_solution_is_a_solution_and_the_way_to_it_is_across():
    made, x = system(OPEN)
    solution, other = solve(made, centre=0.5), torch.rand_like(x)
    nearest = solution.project(other)
    assert made.residual(nearest) < 1e-10
    across, along = (other - nearest).flatten(), (x - nearest).flatten()
    assert abs(float(across @ along)) < 1e-8 * float(across.norm() * along.norm())


def test_the_smoothest_picture_is_the_same_both_ways(monkeypatch):
    made, x = system(OPEN)
    dense = smoothest(solve(made, centre=0.5))
    monkeypatch.setattr(systems, "DENSE", 0)
    free = smoothest(solve(made, centre=0.5))
    assert made.residual(free) < 1e-8
    assert psnr(free, dense) > 30
    assert abs(psnr(free, x) - psnr(dense, x)) < 0.5


def test_few_steps_say_that_they_did_not_suffice():
    made, x = system(OPEN)
    start = torch.zeros_like(x)
    short = least_squares(made.operator, made.target, start, steps=2, tolerance=1e-12)
    assert (short.steps, short.converged) == (2, False)
    again = least_squares(made.operator, made.target, x, steps=2, tolerance=1e-6)
    assert (again.steps, again.converged) == (0, True)
    torch.testing.assert_close(again.point, x, rtol=0, atol=0)
