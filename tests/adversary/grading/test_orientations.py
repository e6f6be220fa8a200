from pathlib import Path

import pytest
import torch

from adversary.grading.orientations import feature_similarity, features
from fedsim.core.rng import generator
from fedsim.data.digits import digits

IMAGES = digits(Path()).inputs[:20].double()


def noise(like, scale):
    return scale * torch.randn(like.shape, generator=generator(0, "noise"), dtype=like.dtype)


def test_equal_pictures_have_one_and_flat_ones_nothing_in_common_with_edges():
    assert torch.equal(feature_similarity(IMAGES, IMAGES), torch.ones(20).double())
    grey = torch.full_like(IMAGES, 0.5)
    assert torch.equal(feature_similarity(IMAGES, grey), torch.zeros(20).double())
    assert torch.equal(feature_similarity(grey, grey * 0.2), torch.ones(20).double())


def test_an_edge_votes_for_its_direction_alone():
    picture = torch.zeros(1, 1, 16, 16)
    picture[..., 8:] = 1.0  # brightness grows to the right
    for turns, direction in ((0, 0), (-1, 2), (2, 4), (1, 6)):  # down is 90°
        blocks = features(picture.rot90(turns, (-2, -1))).view(49, 8, 4)  # 8 directions, 4 cells
        assert int((blocks[:, direction].amax(dim=1) > 0).sum()) == 21  # that touch the edge
        others = blocks[:, [each for each in range(8) if each != direction]]
        assert float(others.max()) <= 0.0
        torch.testing.assert_close(blocks.sum(dim=1), torch.zeros(49, 4).double())


def test_brightness_and_contrast_matter_little_and_another_picture_much():
    others = feature_similarity(IMAGES.roll(1, dims=0), IMAGES)
    assert float(feature_similarity(IMAGES * 0.3 + 0.2, IMAGES).min()) > 0.9
    assert float(others.mean()) < 0.5
    assert float(feature_similarity(1 - IMAGES, IMAGES).max()) < 0.1
    noisy = [IMAGES + noise(IMAGES, scale) for scale in (0.05, 0.2, 1)]
    means = [float(feature_similarity(each, IMAGES).mean()) for each in noisy]
    assert means[0] > means[1] > means[2]


def test_noise_has_nothing_in_common_with_a_picture():
    pictures = torch.rand(40, 3, 32, 32, generator=generator(0, "pictures"))
    smooth = torch.nn.functional.avg_pool2d(pictures, 9, 1, 4)
    smooth = 0.5 + 4 * (smooth - 0.5)
    values = feature_similarity(torch.rand(40, 3, 32, 32, generator=generator(1)), smooth)
    assert abs(float(values.mean())) < 5 * float(values.std()) / 40**0.5 + 0.01


@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (2, 1, 7, 7), (1, 5, 1, 1), (2, 2, 2, 40)])
def test_any_size_and_any_number_of_channels(shape):
    a, b = (torch.rand(shape, generator=generator(0, name)) for name in "ab")
    values = feature_similarity(a, b)
    assert values.shape == shape[:1]
    assert bool(((values >= -1) & (values <= 1)).all())


@pytest.mark.untyped  # what types refuse, too
def test_pairs_have_one_shape():
    with pytest.raises(ValueError, match=r"b: must have the shape of a, \(20, 1, 8, 8\), got"):
        feature_similarity(IMAGES, IMAGES[:1])
