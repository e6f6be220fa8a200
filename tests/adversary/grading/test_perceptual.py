import importlib.util

import pytest
import torch

from adversary.grading import perceptual
from fedsim.config import Config
from fedsim.core.errors import ConfigError
from fedsim.run.prepare import prepare


def without_package(monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "lpips_that_nobody_has")


def test_without_the_package_the_config_is_refused_in_one_sentence(monkeypatch):
    without_package(monkeypatch)
    with pytest.raises(ConfigError, match=r"^grading.lpips: needs the package lpips, got none; "):
        prepare(Config.model_validate({"grading": {"lpips": True}}))


def test_without_weights_the_config_is_refused_and_nothing_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(perceptual, "PACKAGE", "torch")  # one that is installed
    monkeypatch.setattr(perceptual, "weights_file", lambda: tmp_path / "alexnet.pth")
    with pytest.raises(ConfigError, match=r"^grading.lpips: needs AlexNet's weights in .*t\.pth, "):
        perceptual.check()
    assert not list(tmp_path.iterdir())


def test_pictures_are_given_in_colour_and_large_enough():
    class Seen(torch.nn.Module):
        def forward(self, a, b):
            assert a.shape == b.shape == (2, 3, 64, 80)
            assert float(a.min()) == -1.0
            assert float(b.max()) == 1.0
            return torch.full((2, 1, 1, 1), 0.25)

    a, b = torch.zeros(2, 1, 8, 10), torch.ones(2, 1, 8, 10)
    assert perceptual.lpips_similarity(a, b, Seen()).tolist() == [0.75, 0.75]


@pytest.mark.untyped  # what types refuse, too
def test_pairs_have_one_shape():
    a = torch.zeros(2, 1, 8, 10)
    with pytest.raises(ValueError, match=r"b: must have the shape of a, \(2, 1, 8, 10\), got"):
        perceptual.lpips_similarity(a, a[:1], torch.nn.Identity())


def test_the_packages_own_network_gives_equal_pictures_one():
    if (
        importlib.util.find_spec(perceptual.PACKAGE) is None
        or not perceptual.weights_file().is_file()
    ):
        pytest.skip("needs fedsim[lpips] and AlexNet's weights")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    values = perceptual.lpips_similarity(
        torch.cat([x, x]), torch.cat([x, 1 - x]), perceptual.network()
    )
    torch.testing.assert_close(values[:2], torch.ones(2).double())
    assert bool((values[2:] < 1).all())
