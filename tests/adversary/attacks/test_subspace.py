"""One picture of convolutional nets with batch norm; what cannot be answered is refused."""

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.attacks.subspace import subspace
from clients.train import train
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.inversion.inversion_cases import psnr
from tests.builders import observe, plain_gradient

SHAPE, CLASSES = (3, 8, 8), 4
LABEL = torch.tensor([2])


class Batch(nn.BatchNorm2d):
    """A batch norm that leaves something of the scale of its inputs."""

    def __init__(self, width):
        super().__init__(width, eps=1e-2)


class Still(nn.BatchNorm2d):
    """A batch norm whose client trains in evaluation mode."""

    def train(self, mode=True):
        return super().train(mode=False)


class Block(nn.Module):
    """A residual block, as of a ResNet."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(12, 12, 3, padding=1), norm(12)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()


def net(norm=Batch, *, stride=2, seed=0):
    with global_stream(seed, "subspace"):
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, bias=False), norm(12), nn.ReLU(), Block(norm),
            nn.Conv2d(12, 72, 3, stride=stride, padding=1, bias=False), norm(72), nn.ReLU(),
            nn.Flatten(), nn.Linear(72 * (8 // stride) ** 2, CLASSES),
        ).train()  # fmt: skip


def picture(count=1):
    return torch.rand(count, *SHAPE, generator=generator(0, "subspace"))


def auxiliary(model, **given):
    return Auxiliary(model, CLASSES, input_shape=SHAPE, **given)


@pytest.mark.theorem
@pytest.mark.parametrize(("norm", "stride"), [(Batch, 2), (Still, 1)])
def test_a_picture_comes_back_from_a_float32_gradient(norm, stride):
    model, x = net(norm, stride=stride), picture()
    view = observe(plain_gradient(model, x, LABEL), 1, sent=model)
    with pytest.warns(Remark, match="inputs of 4 lie in a space of"):
        guess = subspace(view, auxiliary(model), generator(0), iterations=200)
    assert guess.shape == x.shape
    assert psnr(guess, x) > 25  # grey has 11


def test_uploaded_weights_are_read_too():
    model, x = net(Still), picture()
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    local = LocalTraining(lr=0.1, batch_size=1, epochs=1)
    state, _ = train(net(Still), sent, x, LABEL, local, generator=generator(0))
    view = observe(subtract(state, sent), 1, sent=model, local=local)
    with pytest.warns(Remark):
        guess = subspace(view, auxiliary(model), generator(0), iterations=100)
    assert psnr(guess, x) > 20


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("num_examples: must be 1", {"count": 2}),
        ("local: must be one step", {"local": LocalTraining(lr=0.1, batch_size=1, epochs=2)}),
        ("no more places than output channels", {"model": nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, CLASSES))}),
    ],
)  # fmt: skip
def test_other_models_and_protocols_are_refused(rule, change):
    model, x = change.get("model", net()), picture(change.get("count", 1))
    labels = LABEL.expand(len(x))
    local = {"local": change["local"]} if "local" in change else {}
    view = observe(plain_gradient(model, x, labels), len(x), sent=model, **local)
    with pytest.raises(NotApplicable, match=rule):
        subspace(view, auxiliary(model), generator(0))


@pytest.mark.parametrize("harm", ["noise", "two", "zero"])
def test_gradients_of_something_else_are_refused(harm):
    model = net()
    gradient = plain_gradient(model, picture(2), torch.tensor([2, 1]))
    if harm != "two":
        scale = 0.0 if harm == "zero" else 1.0
        gradient = plain_gradient(model, picture(), LABEL)
        gradient["4.weight"] = scale * torch.randn(72, 12, 3, 3, generator=generator(0))
    with pytest.raises(NotApplicable, match="4: its gradient must be of rank"):
        subspace(observe(gradient, 1, sent=model), auxiliary(model), generator(0))


def test_descents_that_get_stuck_have_no_answer():
    model = net()
    view = observe(plain_gradient(model, picture(), LABEL), 1, sent=model)
    with pytest.raises(ValueError, match="descent must bring the picture's inputs"):
        subspace(view, auxiliary(model), generator(0), iterations=1)


class Unused(nn.Module):
    """A net with a convolution that no logit depends on, as auxiliary heads have in training."""

    def __init__(self):
        super().__init__()
        self.net, self.unused = net(Still), nn.Conv2d(3, 72, 3, stride=2, padding=1)

    def forward(self, x):
        self.unused(x)
        return self.net(x)


def test_a_convolution_that_no_logit_depends_on_is_passed_over():
    with global_stream(0, "unused"):
        model, x = Unused(), picture()
    gradient = {f"net.{n}": value for n, value in plain_gradient(model.net, x, LABEL).items()}
    zeros = {f"unused.{n}": torch.zeros_like(p) for n, p in model.unused.named_parameters()}
    view = observe(gradient | zeros, 1, sent=model)
    with pytest.warns(Remark, match="inputs of net.4 lie in a space of"):
        subspace(view, auxiliary(model), generator(0), iterations=100)


def test_a_plan_says_which_models_are_refused():
    plan, local = ATTACKS["subspace"].plan, LocalTraining(lr=0.1, batch_size=1, epochs=1)
    assert plan(auxiliary(net()), local, 1) == ""
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    assert "must have no more places" in plan(auxiliary(dense), local, 1)
    assert "must be 1" in plan(auxiliary(net()), local, 4)
