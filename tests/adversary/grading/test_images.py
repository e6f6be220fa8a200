import math

import pytest
import torch

from adversary.grading.images import CAP, psnr, ssim
from fedsim.core.rng import generator


def pictures(*shape, name="a"):
    return torch.rand(*shape, generator=generator(0, "pictures", name))


def test_a_tenth_everywhere_is_twenty_decibels():
    a = pictures(3, 1, 4, 5).double()
    assert psnr(a, a + 0.1, 1.0).tolist() == pytest.approx([20.0] * 3)


def test_bytes_have_the_same_value_on_their_own_range():
    a, b = ((255 * pictures(4, 3, 6, 6, name=name)).byte() for name in "ab")
    expected = psnr(a.double() / 255, b.double() / 255, 1.0)
    torch.testing.assert_close(psnr(a, b, 255.0), expected)
    assert float((psnr(a.double() / 255, b.double() / 255, 255.0) - expected).mean()) > 48.1


def test_two_pictures_of_noise_have_the_psnr_of_the_closed_form():
    a, b = (pictures(2, 1, 300, 300, name=name) for name in "ab")
    assert psnr(a, b, 1.0).tolist() == pytest.approx([10 * math.log10(6)] * 2, abs=0.05)


def test_psnr_is_that_of_each_pair_and_equal_ones_have_the_cap():
    a = pictures(3, 2, 3)
    b = a + torch.tensor([0.0, 0.01, 1.0]).view(3, 1, 1)
    assert psnr(a.double(), b.double(), 1.0).tolist() == pytest.approx([CAP, 40, 0], abs=1e-4)
    assert float(psnr(a.double(), a.double() * (1 + 1e-16), 1.0).min()) >= 300


def direct_ssim(a, b, data_range):
    """Wang et al. 2004, Eq. 13, window by window, with weighted sums written out."""
    scores = []
    for x, y in zip(a, b, strict=True):  # channels
        height, width = x.shape
        size = min(11, height if height % 2 else height - 1, width if width % 2 else width - 1)
        half = size // 2
        weights = {
            (i, j): math.exp(-(i * i + j * j) / (2 * 1.5**2))
            for i in range(-half, half + 1) for j in range(-half, half + 1)
        }  # fmt: skip
        total = sum(weights.values())
        for row in range(half, height - half):
            for column in range(half, width - half):
                there = [
                    (w / total, float(x[row + i, column + j]), float(y[row + i, column + j]))
                    for (i, j), w in weights.items()
                ]
                mx, my = sum(w * p for w, p, _ in there), sum(w * q for w, _, q in there)
                vx = sum(w * (p - mx) ** 2 for w, p, _ in there)
                vy = sum(w * (q - my) ** 2 for w, _, q in there)
                both = sum(w * (p - mx) * (q - my) for w, p, q in there)
                c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
                scores.append(
                    (2 * mx * my + c1) * (2 * both + c2)
                    / ((mx**2 + my**2 + c1) * (vx + vy + c2))
                )  # fmt: skip
    return sum(scores) / len(scores)


@pytest.mark.parametrize(
    ("shape", "scale"), [((2, 3, 14, 13), 1.0), ((2, 1, 8, 8), 1.0), ((1, 2, 12, 5), 255.0)]
)
def test_ssim_is_that_of_the_formula(shape, scale):
    a = scale * pictures(*shape).double()
    b = (a + 0.2 * scale * pictures(*shape, name="noise")).clamp(max=scale)
    found = ssim(a, b, scale)
    assert found.tolist() == pytest.approx(
        [direct_ssim(x, y, scale) for x, y in zip(a, b, strict=True)], abs=1e-12
    )
    assert torch.equal(found, ssim(b, a, scale))


def test_equal_pictures_are_alike_exactly_and_inverted_ones_are_not():
    a = pictures(4, 3, 16, 16)
    assert torch.equal(ssim(a, a), torch.ones(4, dtype=torch.float64))
    assert float(ssim(a, 1 - a).max()) < 0
    assert torch.equal(ssim(a[:, :, :1, :1], a[:, :, :1, :1]), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("measure", [lambda a, b: psnr(a, b, 1.0), ssim])
def test_other_shapes_are_one_sentence(measure):
    with pytest.raises(Exception, match=r"shape|b:"):
        measure(pictures(2, 1, 8, 8), pictures(2, 1, 8, 9))
