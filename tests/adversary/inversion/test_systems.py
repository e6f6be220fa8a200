from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.inversion.chain import chain
from adversary.inversion.solutions import solve
from adversary.inversion.systems import ConvSystem
from tests.adversary.inversion.inversion_cases import images

SHAPES = [  # in, out, kernel, stride, padding, dilation, size
    (2, 4, 3, 1, 0, 1, (7, 6)),
    (2, 3, 3, 1, 1, 1, (6, 7)),
    (3, 5, 4, 2, 2, 1, (8, 8)),
    (2, 6, (3, 2), (2, 1), (1, 0), 1, (7, 5)),
    (1, 5, 3, 1, 2, 2, (8, 6)),
    (2, 1, 3, 2, 0, 1, (8, 8)),
]


def system(case, *, seed=0, known=None):
    """Return the system of a random convolution, and the input that it is of."""
    fan_in, fan_out, kernel, stride, padding, dilation, size = case
    torch.manual_seed(seed)
    conv = nn.Conv2d(fan_in, fan_out, kernel, stride, padding, dilation, bias=False).double()
    x = images(1, fan_in, *size, seed=seed)
    z = conv(x)
    grad_out = torch.randn_like(z)
    (grad_weight,) = torch.autograd.grad(z, conv.weight, grad_out)
    [layer] = chain(nn.Sequential(conv), (fan_in, *size))
    known = None if known is None else torch.rand_like(z[0]) < known
    if known is not None:
        grad_out = grad_out * known
        (grad_weight,) = torch.autograd.grad(conv(x), conv.weight, grad_out)
    made = ConvSystem(
        layer=layer,
        weight=conv.weight.detach(),
        out=z.detach()[0],
        grad_out=grad_out[0],
        grad_weight=grad_weight,
        mask=known,
    )
    return made, x[0]


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("known", [None, 0.6])
def test_all_forms_of_the_system_are_the_same_and_hold_for_the_true_input(case, known):
    made, x = system(case, known=known)
    rows = made.rows()
    assert rows.shape == (made.constraints, made.unknowns)
    torch.testing.assert_close(made.matrix(), rows.T @ rows)
    probe = torch.randn_like(x)[None]
    torch.testing.assert_close(made.normal(probe).flatten(), rows.T @ (rows @ probe.flatten()))
    z = made.out.flatten() if made.mask is None else made.out[made.mask]
    right = torch.cat([z, made.sights.T.flatten()])
    torch.testing.assert_close(rows @ x.flatten(), right)
    torch.testing.assert_close(made.right.flatten(), rows.T @ right)
    assert made.residual(x) < 1e-12


@pytest.mark.parametrize("case", SHAPES)
def test_the_rank_is_that_of_the_dense_matrix_and_the_true_input_is_a_solution(case):
    made, x = system(case)
    found = solve(made)
    assert found.rank == int(torch.linalg.matrix_rank(made.rows()))
    assert made.residual(found.point) < 1e-10
    torch.testing.assert_close(found.project(x), x, rtol=0, atol=1e-7)
    if found.rank == made.unknowns:
        torch.testing.assert_close(found.point, x, rtol=0, atol=1e-9)


def test_the_point_is_the_solution_nearest_to_the_centre():
    made, x = system((2, 1, 3, 2, 0, 1, (8, 8)))
    found = solve(made, centre=0.5)
    assert found.basis is not None
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(found.rank).double())
    least = torch.linalg.lstsq(
        made.rows(), made.rows() @ (x - 0.5).flatten()[:, None], driver="gelsd"
    ).solution
    torch.testing.assert_close(found.point.flatten() - 0.5, least[:, 0], rtol=0, atol=1e-8)


def test_padding_as_unknown_zeros_gives_the_same_as_padding_left_out():
    fan_in, fan_out, size = 2, 3, (6, 6)
    made, x = system((fan_in, fan_out, 3, 1, 1, 1, size))
    wide, _ = system((fan_in, fan_out, 3, 1, 0, 1, (8, 8)))
    # The same convolution over an input that has the border.
    padded = replace(made, layer=wide.layer)
    border = functional.pad(torch.ones(1, *size), (1, 1, 1, 1))[0].bool().expand(fan_in, -1, -1)
    zeros = torch.eye(padded.unknowns).double()[~border.flatten()]
    rows = torch.cat([padded.rows(), zeros])
    known = torch.cat([padded.rows() @ functional.pad(x, (1, 1, 1, 1)).flatten(),
                       torch.zeros(len(zeros)).double()])  # fmt: skip
    wide_x = torch.linalg.lstsq(rows, known[:, None]).solution[:, 0].view(fan_in, 8, 8)
    missing = padded.unknowns - int(torch.linalg.matrix_rank(rows))
    assert missing == made.unknowns - solve(made).rank
    torch.testing.assert_close(wide_x[:, 1:-1, 1:-1], solve(made).point, rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_the_scale_of_the_loss_changes_nothing(scale):
    made, x = system((2, 3, 3, 1, 1, 1, (6, 7)))
    other = replace(made, grad_out=scale * made.grad_out, grad_weight=scale * made.grad_weight)
    assert solve(other).rank == solve(made).rank
    torch.testing.assert_close(solve(other).point, x, rtol=0, atol=1e-8)


def test_the_gradients_of_a_layer_without_bias_obey_eulers_identity():
    made, _ = system((2, 4, 3, 1, 0, 1, (7, 6)))
    left = torch.einsum("ackl,bckl->ab", made.grad_weight, made.weight)
    right = torch.einsum("ahw,bhw->ab", made.grad_out, made.out)
    torch.testing.assert_close(left, right)
