import pytest
import torch
from torch import nn

from adversary.inversion.priors import (
    deep_image,
    energy,
    form_of,
    generative,
    total_variation,
)
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator, global_stream

SHAPE = (2, 3, 6, 5)
BOX = torch.zeros(()), torch.ones(())


def decoder(batch, shape):
    """A generator as a user would write it."""
    with global_stream(0, "decoder"):
        net = nn.Sequential(nn.Linear(4, shape.numel()), nn.Sigmoid(), nn.Unflatten(1, shape))
    return net, (4,)


def form(prior, **changes):
    return form_of(prior, SHAPE, torch.float32, generator(0), box=BOX, start="uniform", **changes)


def test_total_variation_by_hand():
    picture = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 3.0]])
    # down: 0, 1, 2 over three pairs; right: 1, 0, 0, 3 over four.
    expected = 3 / 3 + 4 / 4
    images = torch.stack([picture, 2 * picture, torch.ones(2, 3)]).view(3, 1, 1, 2, 3)
    torch.testing.assert_close(total_variation(images), torch.tensor([expected, 2 * expected, 0.0]))


def test_total_variation_is_of_pictures():
    assert torch.equal(total_variation(torch.rand(2, 1, 3, 1, 1)), torch.zeros(2))
    with pytest.raises(ValueError, match="tv: must be 0 for inputs that are not"):
        total_variation(torch.rand(2, 1, 7))


def test_energy_by_hand():
    images = torch.tensor([[1.0, 1.0], [3.0, 1.0]]).view(2, 1, 2)
    assert energy(images).tolist() == [1.0, 5.0]


@pytest.mark.parametrize("prior", ["pixels", "deep-image"])
def test_rows_do_not_depend_on_each_other(prior):
    there = form(prior)
    start = there.start(3, generator(1))
    assert start.shape == (3, there.size)
    images = there.images(start)
    assert images.shape == (3, *SHAPE)
    torch.testing.assert_close(images[1:2], there.images(start[1:2]))
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert torch.equal(start, there.start(3, generator(1)))


def test_pixels_are_kept_in_the_box():
    low, high = torch.tensor([0.0, 0.2, 0.4]).view(3, 1, 1), torch.tensor(0.6)
    there = form_of("pixels", SHAPE, torch.float32, generator(0), box=(low, high), start="uniform")
    images = there.images(there.project(5 * torch.randn(4, there.size)))
    assert torch.equal(images.amin(dim=(0, 1, 3, 4)), low.flatten())
    assert float(images.max()) == pytest.approx(0.6)
    free = form_of("pixels", SHAPE, torch.float32, generator(0), box=None, start="normal")
    assert free.project is None
    assert float(free.start(9, generator(0)).std()) == pytest.approx(1.0, abs=0.1)


def test_pixels_begin_near_grey():
    low, high = torch.zeros(()), torch.tensor(4.0)
    near = form_of("pixels", SHAPE, torch.float32, generator(0), box=(low, high), start="grey")
    start = near.start(9, generator(0))
    assert 1.8 <= float(start.min()) < 1.85
    assert 2.15 < float(start.max()) <= 2.2


def test_a_deep_image_can_be_fitted_row_by_row():
    there = deep_image((1, 1, 8, 8), torch.float32, generator(0))
    wanted = torch.stack([torch.linspace(0, 1, 8).expand(8, 8), torch.full((8, 8), 0.2)])
    v = there.start(2, generator(1))
    errors = lambda at: (there.images(at)[:, 0, 0] - wanted).square().mean(dim=(1, 2))
    first = errors(v)
    for _ in range(100):
        v.requires_grad_()
        v = v.detach() - 0.5 * torch.autograd.grad(errors(v).sum(), v)[0]
    assert bool((errors(v) < 0.2 * first).all())


def test_a_generator_of_the_users_own():
    there = generative(SHAPE, torch.float32, lambda n, shape: decoder(n, torch.Size(shape)))
    v = there.start(3, generator(0))
    assert v.shape == (3, 2 * 4)
    images = there.images(v)
    net, _ = decoder(2, torch.Size(SHAPE[1:]))
    torch.testing.assert_close(images[1], net(v[1].view(2, 4)))


def test_a_prior_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"prior: must give images of shape \(2, 3, 6, 5\)"):
        generative(SHAPE, torch.float32, lambda n, shape: (nn.Linear(4, 5), (4,)))
    with pytest.raises(ValueError, match="prior: must not be 'deep-image' for inputs"):
        deep_image((2, 7), torch.float32, generator(0))
    with pytest.raises(ConfigError, match="prior: must be a known name, got 'pixel'"):
        form("pixel")
    with pytest.raises(ConfigError, match="prior: must be an importable package.module:function"):
        form("nowhere:net")
