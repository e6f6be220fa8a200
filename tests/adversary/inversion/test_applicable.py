"""Bad input is one sentence, in every attack that reconstructs."""

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary
from tests.builders import observe, plain_gradient

NAMES = [name for name, attack in ATTACKS.items() if attack.family == "reconstruction"]
TWICE = ("dlg", "inverting-gradients", "see-through-gradients", "tab-leak", "joint")
X, Y = torch.rand(1, 1, 4, 4, generator=generator(0, "x")), torch.tensor([2])


class Fused(torch.autograd.Function):
    """exp, whose backward has no derivative, as of a fused kernel."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, *grad_outputs):
        (x,) = ctx.saved_tensors
        return FusedBackward.apply(x, *grad_outputs)


class FusedBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, g):
        return x.exp() * g

    @staticmethod
    def backward(ctx, *grad_outputs):
        raise NotImplementedError("no derivative of fused_exp_backward")


class Called(nn.Module):
    """A convolution, a function, and a linear layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        with global_stream(0, "model"):
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.function(self.conv(x)).flatten(1))


def refused(name, model, **auxiliary):
    """Return the sentence with which an attack refuses one gradient."""
    view = observe(plain_gradient(model, X, Y), 1, sent=model)
    given = {"input_shape": (1, 4, 4)} | auxiliary
    with pytest.raises(NotApplicable) as refusal:
        ATTACKS[name].infer(view, Auxiliary(model, 3, **given), generator(0))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 5, 5), (16,), ()])
@pytest.mark.parametrize("name", NAMES)
def test_a_shape_that_the_model_does_not_take(name, shape):
    sentence = refused(name, Called(torch.tanh), input_shape=shape)
    assert sentence.startswith(f"input_shape: must be one that the model takes, got {shape} (")


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_are_whole_numbers(name, dtype):
    inputs = torch.ones(6, 1, 4, 4).to(dtype)
    sentence = refused(name, Called(torch.tanh), inputs=inputs, labels=torch.arange(6) % 3)
    assert sentence == "inputs: must be real numbers for a reconstruction, got whole numbers"


@pytest.mark.parametrize(
    ("function", "why"),
    [(Fused.apply, "no derivative of fused_exp_backward"), (torch.sign, "no derivative in the in")],
)
@pytest.mark.parametrize("name", TWICE)
def test_a_model_that_is_not_differentiable_twice(name, function, why):
    sentence = refused(name, Called(function))
    assert sentence.startswith("model: must have a gradient that can be differentiated: ")
    assert why in sentence


class Signs(nn.Module):
    """Two linear layers, the second of which has the signs of the first."""

    def __init__(self):
        super().__init__()
        with global_stream(0, "model"):
            self.first, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.first(x.flatten(1))
        return self.head(hidden + (hidden.sign() - hidden).detach())  # straight through


def test_what_needs_no_descent_reads_a_model_whose_slope_is_not_its_own():
    model = Signs()
    view = observe(plain_gradient(model, X, Y), 1, sent=model)
    known = Auxiliary(model, 3, input_shape=(1, 4, 4))
    answer = ATTACKS["analytic"].infer(view, known, generator(0))
    torch.testing.assert_close(answer.float(), X, atol=1e-4, rtol=0)
