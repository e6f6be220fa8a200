import pytest
import torch
from torch import nn

from adversary.inversion.lanczos import top
from adversary.inversion.windows import Windows, inputs_in_span, spans_windows
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator


def drawn(*shape, name="windows"):
    return torch.randn(*shape, generator=generator(0, name), dtype=torch.float64)


def case(stride=1, padding=1, *, centred=False, out=40, shape=(4, 5, 6)):
    """Return a convolution, an input of it, and the gradient of its weight."""
    conv = nn.Conv2d(shape[0], out, 3, stride, padding).double()
    x = drawn(*shape).relu()
    places = conv(x.unsqueeze(0))[0, 0].numel()
    reach = torch.eye(places, dtype=torch.float64)
    if centred:  # as batch norm does to slopes
        reach = torch.linalg.svd(reach - 1 / places)[0][:, :-1]
    windows = Windows("conv", conv, shape, reach)
    slopes = drawn(out, places, name="slopes") @ reach @ reach.T
    return windows, x.flatten(), (slopes @ windows.of(x.flatten()).T).view_as(conv.weight)


def outside(basis, x):
    return float((x - basis @ (basis.T @ x)).square().sum() / x.square().sum())


@pytest.mark.theorem
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (1, 0), (2, 1)])
def test_the_input_lies_in_the_space_that_its_gradient_leaves(stride, padding, centred):
    windows, x, gradient = case(stride, padding, centred=centred)
    basis = inputs_in_span(windows, gradient)
    seen = windows.back(windows.of(torch.ones_like(x))) > 0  # no window has the last column
    assert outside(basis, x * seen) < 1e-10
    assert outside(basis, drawn(len(x), name="another") * seen) > 0.5
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]).double())


@pytest.mark.worked
def test_with_padding_and_no_stride_one_input_is_left():
    windows, x, gradient = case()
    assert inputs_in_span(windows, gradient).shape == (len(x), 1)


@pytest.mark.worked
def test_without_the_mean_of_slopes_constants_are_left_too():
    windows, x, gradient = case(padding=0, centred=True)
    assert inputs_in_span(windows, gradient).shape == (len(x), 1 + windows.shape[0])


@pytest.mark.worked
def test_places_that_no_slope_reaches_are_left_out():
    windows, x, _ = case()
    reach = windows.reach[:, :25]  # as behind a pool that drops the last places
    fewer = Windows("conv", windows.module, windows.shape, reach)
    slopes = drawn(40, 25, name="slopes") @ reach.T
    basis = inputs_in_span(fewer, (slopes @ windows.of(x).T).view(40, 4, 3, 3))
    seen = windows.back(windows.of(torch.ones_like(x)) @ reach @ reach.T) > 0
    assert outside(basis, x * seen) < 1e-10


@pytest.mark.parametrize("other", ["noise", "a second example", "zero"])
def test_gradients_of_another_rank_are_refused(other):
    windows, x, gradient = case()
    second = drawn(40, 30, name="of another") @ windows.of(drawn(len(x), name="second")).T
    noise = drawn(*gradient.shape, name="noise")
    gradient = {"noise": gradient + noise, "a second example": gradient + second.view(40, 4, 3, 3),
                "zero": 0 * gradient}[other]  # fmt: skip
    with pytest.raises(NotApplicable, match="conv: its gradient must be of rank 30"):
        inputs_in_span(windows, gradient)


def test_an_input_is_refused_where_slopes_are_of_other_places():
    windows, _, gradient = case()
    another = drawn(*gradient.shape, name="rows")
    rows = torch.linalg.svd(another.flatten(1), full_matrices=False)[2][:30]
    unlike = (drawn(40, 30, name="slopes") @ rows).view_as(gradient)
    with pytest.raises(NotApplicable, match="an input must fit its gradient, got none"):
        inputs_in_span(windows, unlike)


@pytest.mark.worked
def test_which_convolutions_can_have_the_span():
    assert spans_windows(nn.Conv2d(8, 64, 3), 64)
    assert not spans_windows(nn.Conv2d(8, 64, 3), 65)
    assert not spans_windows(nn.Conv2d(8, 64, 3), 1)
    assert not spans_windows(nn.Conv2d(8, 64, 2, stride=2), 16)  # windows that do not overlap
    assert not spans_windows(nn.Conv2d(8, 64, 3, groups=2), 16)
    assert not spans_windows(nn.Conv2d(1, 64, 3), 16)  # spans of everything
    assert not spans_windows(nn.Linear(8, 64), 16)


@pytest.mark.twin
def test_the_largest_eigenvalue_is_that_of_all():
    matrix = drawn(40, 40)
    matrix = matrix + matrix.T
    values, vectors = torch.linalg.eigh(matrix)
    nothing = torch.empty(40, 0, dtype=torch.float64)
    v, value = top(lambda u: matrix @ u, drawn(40), outside_of=nothing, tolerance=1e-9)
    assert value == pytest.approx(float(values[-1]))
    assert abs(float(v @ vectors[:, -1])) == pytest.approx(1)
    _, second = top(lambda u: matrix @ u, drawn(40), outside_of=v[:, None], tolerance=1e-9)
    assert second == pytest.approx(float(values[-2]))
