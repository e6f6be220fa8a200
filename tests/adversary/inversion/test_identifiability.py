"""Closed-form ranks against dense ones, and the papers' metric."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adversary.inversion.chain import chain
from adversary.inversion.identifiability import System, metric, system, systems
from fedsim.core.rng import global_stream
from tests.adversary.inversion.networks import CONVS, METRIC, named


def dense(conv, dz):
    """U = [W; K(dz)] of a convolution, column by column."""
    shape = (conv.in_channels, *dz.size_of_input)
    options = conv.stride, conv.padding, conv.dilation, conv.groups
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    columns = []
    for unit in units:
        weight = conv.weight.detach().requires_grad_()
        z = functional.conv2d(unit[None], weight, None, *options)
        (k,) = torch.autograd.grad(z, weight, dz[None])
        columns.append(torch.cat([z.detach().flatten(), k.flatten()]))
    return torch.stack(columns, dim=1)


def drawn(seed, *numbers):
    """A convolution in general position, an input, and dz of its output."""
    fan_in, fan_out, kernel, stride, padding, dilation, groups, size = numbers
    with global_stream(seed, "conv"):
        conv = nn.Conv2d(
            fan_in * groups, fan_out * groups, kernel, stride, padding, dilation, groups
        ).double()
        x = torch.randn(1, fan_in * groups, *size, dtype=torch.float64)
        dz = torch.randn_like(conv(x)[0])
    dz.size_of_input = size
    return conv, x, dz


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(
        st.integers(1, 3), st.integers(1, 8), st.integers(1, 4), st.integers(1, 3),
        st.integers(0, 2), st.integers(1, 2), st.integers(1, 2),
    ),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
)  # fmt: skip
def test_the_closed_form_is_never_below_the_dense_rank(numbers, size):
    try:
        conv, x, dz = drawn(0, *numbers, size)
    except RuntimeError:  # the kernel does not fit
        return
    found = system("it", conv, tuple(x.shape[1:]), tuple(dz.shape), head=False)
    matrix = dense(conv, dz)
    assert (found.rows, found.unknowns) == matrix.shape
    rank = int(torch.linalg.matrix_rank(matrix, tol=1e-9))
    assert found.rank >= rank
    assert found.dead == int((matrix == 0).all(dim=0).sum())


def test_the_closed_form_is_the_dense_rank_almost_always():
    stream = torch.Generator().manual_seed(0)
    draw = lambda low, high: int(torch.randint(low, high + 1, (), generator=stream))
    missed = 0
    for seed in range(120):
        kernel = draw(1, 4)
        numbers = draw(1, 3), draw(1, 6), kernel, draw(1, 3), draw(0, 2), 1, 1
        conv, x, dz = drawn(seed, *numbers, (draw(kernel, 7), draw(kernel, 7)))
        found = system("it", conv, tuple(x.shape[1:]), tuple(dz.shape), head=False)
        missed += found.rank != int(torch.linalg.matrix_rank(dense(conv, dz), tol=1e-9))
    assert missed <= 6  # 9 of 600 over a wider range


@pytest.mark.parametrize(
    ("numbers", "size", "rank"),
    [
        ((3, 2, 4, 2, 0, 1, 1), (8, 8), 2 * 9 + 2 * 48 - 4),  # C_out·hw + C_out·C_in·k² − C_out²
        ((3, 6, 4, 2, 0, 1, 1), (8, 8), 192),  # all of it
        ((4, 2, 1, 1, 0, 1, 1), (3, 3), 2 * 9 + 8 - 4),
        ((2, 9, 1, 1, 0, 1, 1), (2, 2), 8),  # more filters than weights each
        ((1, 3, 3, 2, 0, 1, 1), (6, 6), 25),  # 11 pixels under no window
    ],
)
def test_ranks_by_hand(numbers, size, rank):
    conv, x, dz = drawn(0, *numbers, size)
    found = system("it", conv, tuple(x.shape[1:]), tuple(dz.shape), head=False)
    assert found.rank == rank == int(torch.linalg.matrix_rank(dense(conv, dz), tol=1e-9))


def test_a_bias_of_a_convolution_moves_the_right_side_alone():
    conv, x, dz = drawn(3, 2, 4, 3, 1, 1, 1, 1, (5, 5))
    matrix = dense(conv, dz)
    (weight,) = torch.autograd.grad(conv(x), conv.weight, dz[None])
    z = conv(x)[0].detach()
    right = lambda z: torch.cat([z.flatten(), weight.flatten()])
    at = matrix @ x.flatten()
    torch.testing.assert_close(at, right(z - conv.bias.detach()[:, None, None]))
    assert (at - right(z)).abs().max() > 0.01
    kept = system("it", conv, (2, 5, 5), tuple(dz.shape), head=False)
    conv.bias = None
    assert system("it", conv, (2, 5, 5), tuple(dz.shape), head=False) == kept


def test_a_linear_layer_holds_its_input_and_a_head_without_bias_all_but_a_factor():
    layers = lambda bias: chain(
        nn.Sequential(nn.Linear(6, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=bias)), (6,)
    )
    assert [it.deficiency for it in systems(layers(True))] == [0, 0]
    first, head = systems(layers(False))
    assert (first.rank, head.rank, head.unknowns) == (6, 3, 4)
    assert "factor" in head.note


@pytest.mark.parametrize("name", CONVS)
def test_named_networks_have_the_papers_metric(name):
    found = systems(chain(named(name), (3, 32, 32)))
    assert metric(found) == pytest.approx(METRIC[name], abs=0.5)


def test_stride_splits_gradient_constraints_into_classes_that_saturate():
    # The second layer of CNN6-d: without the classes of pixels it would miss 88 numbers, not 280.
    conv, _, dz = drawn(0, 12, 20, 3, 2, 1, 1, 1, (17, 17))
    windows = functional.unfold(
        torch.eye(289, dtype=torch.float64).view(289, 1, 17, 17), 3, padding=1, stride=2
    )
    shared = torch.einsum("ntl,ol->otn", windows, dz.flatten(1)).flatten(0, 1)
    of_channel = int(torch.linalg.matrix_rank(shared))
    assert of_channel == 164 < len(shared) == 180
    found = system("it", conv, (12, 17, 17), tuple(dz.shape), head=False)
    assert found.rank == 20 * 81 + 12 * of_channel - 20**2
    assert found.deficiency == 280


def test_what_is_no_layer_of_a_system_is_one_sentence():
    with pytest.raises(ValueError, match="it = MaxPool2d: must be Conv2d or Linear"):
        system("it", nn.MaxPool2d(2), (1, 4, 4), (1, 2, 2), head=False)
    with pytest.raises(ValueError, match="as many zeros on either side"):
        system("it", nn.Conv2d(1, 1, 2, padding="same"), (1, 4, 4), (1, 4, 4), head=False)
    words, number = nn.Conv2d(1, 2, 3, padding="same"), nn.Conv2d(1, 2, 3, padding=1)
    assert system("it", words, (1, 4, 4), (2, 4, 4), head=False) == system(
        "it", number, (1, 4, 4), (2, 4, 4), head=False
    )
    assert System(name="it", kind="conv", rows=5, unknowns=4, rank=3).deficiency == 1
