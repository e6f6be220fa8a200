import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from adversary.attacks.spear import spear
from adversary.inversion.relu_batch import UnfinishedError
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, View
from tests.adversary.inversion.inversion_cases import CLASSES, gradient, images, net, psnr, view

SHAPE = (3, 8, 8)


def seen(model, x, *, smoothing=0.0):
    """Return what the server sees of a batch, and what it knows."""
    labels = torch.randint(CLASSES, (len(x),), generator=generator(0, "labels"))
    observed = view(model, gradient(model, x, labels, smoothing=smoothing), len(x))
    local = replace(observed.latest.local, label_smoothing=smoothing)
    return View([replace(observed.latest, local=local)]), Auxiliary(
        model, CLASSES, input_shape=SHAPE
    )


def perceptron(*behind, units=200):
    return net(nn.Flatten(), nn.Linear(192, units), nn.ReLU(), *behind, nn.Linear(units, CLASSES))


@pytest.mark.parametrize("behind", [(), (nn.Linear(200, 200), nn.Tanh())])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_answer_that_the_later_layers_give_too_has_no_remark(behind, smoothing):
    x = images(6, *SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guess = spear(*seen(perceptron(*behind), x, smoothing=smoothing), generator(0))
    assert guess.dtype == torch.float64
    assert min(max(psnr(one, true) for one in guess) for true in x) > 150


class Functional(nn.Module):
    """Calls ReLU as a function."""

    def __init__(self):
        super().__init__()
        self.head, self.first = nn.Linear(200, CLASSES), nn.Linear(192, 200)

    def forward(self, x):
        return self.head(nn.functional.relu(self.first(x.flatten(1))))


def test_a_relu_that_is_a_function_is_read_too():
    x = images(6, *SHAPE)
    guess = spear(*seen(net(Functional()), x), generator(0))
    assert min(max(psnr(one, true) for one in guess) for true in x) > 150


def test_an_answer_that_no_label_explains_says_so():
    model, x = perceptron(), images(4, *SHAPE)
    slopes = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))  # no classes
    names = [name for name, _ in model.named_parameters()]
    observed = view(model, dict(zip(names, slopes, strict=True)), 4)
    with pytest.warns(Remark, match="not certified by the later layers: .* of one label, got"):
        guess = spear(observed, Auxiliary(model, CLASSES, input_shape=SHAPE), generator(0))
    assert min(max(psnr(one, true) for one in guess) for true in x) > 150


def test_batch_norm_behind_the_layer_leaves_the_zeros_and_no_certificate():
    model, x = perceptron(nn.BatchNorm1d(200)).train(), images(4, *SHAPE)
    with pytest.warns(Remark, match="3 = BatchNorm1d: an example's gradient depends on what"):
        guess = spear(*seen(model, x), generator(0))
    assert min(max(psnr(one, true) for one in guess) for true in x) > 150


def test_an_unfinished_search_is_resumed_from_its_folder(tmp_path: Path):
    x, folder = images(24, *SHAPE), str(tmp_path / "searches")
    observed, known = seen(perceptron(units=300), x)
    with pytest.raises(UnfinishedError, match="of 1 allowed"):
        spear(observed, known, generator(0), draws=1, resume=folder)
    (kept,) = Path(folder).iterdir()
    guess = spear(observed, known, generator(0), resume=folder)
    assert min(max(psnr(one, true) for one in guess) for true in x) > 100
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(Exception, match=kept.name):
        spear(observed, known, generator(0), resume=folder)


@pytest.mark.parametrize("limits", [{"draws": 0}, {"seconds": -1.0}])
def test_limits_out_of_range_are_one_sentence(limits):
    with pytest.raises(NotApplicable, match="spear: draws must be at least 1 and seconds at"):
        spear(*seen(perceptron(), images(2, *SHAPE)), generator(0), **limits)
