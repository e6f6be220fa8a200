import pytest
import torch
from torch import nn

from adversary.inversion.stand_ins import PICTURES, dead_leaves, with_stand_ins
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary


def test_dead_leaves_fill_the_range_and_have_the_spectrum_of_photographs():
    pictures = dead_leaves(40, (3, 32, 32), generator(0))
    assert torch.equal(pictures.amin(dim=(0, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(pictures.amax(dim=(0, 2, 3)), torch.ones(3))
    flat = pictures - pictures.mean(dim=(2, 3), keepdim=True)
    amplitude = torch.fft.rfft2(flat).abs().mean(dim=(0, 1))[0, 1:13]
    frequency = torch.arange(1.0, 13.0)
    points = torch.stack([frequency.log(), torch.ones(12)], dim=1)
    slope = torch.linalg.lstsq(points, amplitude.log().unsqueeze(1)).solution[0]
    assert -1.4 < float(slope) < -0.6  # of photographs about -1


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 5), (2, 1, 1)])
def test_they_have_the_shape_and_are_the_same_for_a_seed(shape):
    pictures = dead_leaves(2, shape, generator(1))
    assert pictures.shape == (2, *shape)
    assert bool(torch.isfinite(pictures).all())
    assert torch.equal(pictures, dead_leaves(2, shape, generator(1)))


def test_pictures_that_the_adversary_has_stay_and_get_labels():
    model = nn.Linear(1, 4)
    pictures = torch.rand(7, 1, 4, 4)
    kept = with_stand_ins(Auxiliary(model, 4, inputs=pictures))
    assert kept.inputs is pictures
    assert kept.labels is not None
    assert set(kept.labels.tolist()) <= set(range(4))
    bare = with_stand_ins(Auxiliary(model, 4, input_shape=(1, 4, 4)))
    assert bare.inputs.shape == (PICTURES, 1, 4, 4)
