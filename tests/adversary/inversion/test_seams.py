"""Jumps where patches meet, and only there."""

import pytest
import torch

from adversary.inversion.seams import SOFT, Seams

PIXELS = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7]])  # of a picture of 1×2×4, two patches of 2×2


def test_a_picture_whose_patches_differ_has_their_step_as_its_seam():
    images = torch.tensor([[[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]]]).expand(2, 1, 1, 2, 4)
    expected = (1 + SOFT**2) ** 0.5 - SOFT
    assert Seams((1, 2, 4), PIXELS).of(images).tolist() == [[pytest.approx(expected)]] * 2


def test_steps_inside_a_patch_are_no_seam():
    images = torch.tensor([[[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]])
    assert float(Seams((1, 2, 4), PIXELS).of(images)) == pytest.approx(0.0, abs=1e-7)


def test_a_border_that_no_patch_covers_has_a_seam_to_its_neighbours():
    images = torch.tensor([[[0.0, 0.0, 0.5]]])
    only = torch.tensor([[0, 1]])
    expected = (0.25 + SOFT**2) ** 0.5 - SOFT
    assert float(Seams((1, 1, 3), only).of(images)) == pytest.approx(expected)
