"""Recursive reconstruction of photographs of 64×64 pixels: docs/results/reconstruction.md, sizes.

The dense system of such a picture took over 100 CPU-seconds and 3.9 GB.
"""

import statistics

import pytest

from tests.benchmarks.sizes import attacked

pytestmark = pytest.mark.paper


def test_an_open_first_layer_gives_the_smoothest_picture():
    row = attacked("cnn2_c2", 64, "hybrid", images=4, double=False)
    assert statistics.fmean(row.psnr) > 30
    assert statistics.fmean(row.psnr) > statistics.fmean(row.blind) + 12
    assert row.peak - row.before < 1000


@pytest.mark.parametrize(("double", "least"), [(False, 100), (True, 200)])
def test_a_determined_first_layer_gives_the_picture_itself(double, least):
    row = attacked("lenet-1", 64, "r-gap", images=2, double=double)
    assert min(row.psnr) > least
