import torch

from adversary.inversion.affine import _differences, _divergence, smoothest
from adversary.inversion.solutions import solve
from tests.adversary.inversion.inversion_cases import psnr
from tests.adversary.inversion.test_systems import system


def variation(x):
    return float(_differences(x).square().sum(dim=0).sqrt().sum())


def test_the_answer_explains_the_layer_exactly_and_is_the_smoothest_that_does():
    made, x = system((1, 2, 3, 2, 0, 1, (12, 12)))
    solution = solve(made, centre=0.5)
    found = smoothest(solution, steps=3000)
    assert made.residual(found) < 1e-7
    assert -1e-3 < float(found.min()) <= float(found.max()) < 1 + 1e-3
    assert variation(found) <= variation(x) + 1e-3
    stream = torch.Generator().manual_seed(0)
    for _ in range(20):  # a convex problem: no step within the solutions is smoother
        aside = solution.project(found + 0.05 * torch.randn(x.shape, generator=stream))
        assert variation(aside) > variation(found) - 1e-3


def test_it_is_nearer_than_the_least_norm_on_smooth_pictures_in_colour():
    gains = []
    for seed in range(4):
        made, x = system((3, 3, 4, 2, 0, 1, (16, 16)), seed=seed)
        solution = solve(made, centre=0.5)
        assert solution.basis is not None
        gains.append(psnr(smoothest(solution), x) - psnr(solution.point, x))
    assert min(gains) > 1
    assert sum(gains) / 4 > 3


def test_where_nothing_is_open_the_solution_itself_comes_back():
    made, x = system((2, 4, 3, 1, 0, 1, (7, 6)))
    torch.testing.assert_close(smoothest(solve(made)), x, rtol=0, atol=1e-9)


def test_divergence_is_the_transpose_of_differences():
    x, p = torch.randn(2, 5, 4), torch.randn(2, 2, 5, 4)
    torch.testing.assert_close((_differences(x) * p).sum(), (x * _divergence(p)).sum())
