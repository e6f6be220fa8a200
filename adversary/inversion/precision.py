"""What rounding and noise do to an upload, parameter by parameter.

A client that uploads weights rounds w − lr·g to float32: an error of ulp(w)/√12 in the weights is
one of ulp(w)/(√12·lr) in the gradient, and no larger than the gradient itself, where the step is
lost altogether. So the gradient is 20 dB worse per decade of the learning rate.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core.doubled import doubled
from fedsim.core.params import ulp
from fedsim.core.types import Upload

FLOOR = 1e-10  # of the gradient's size: no parameter is known better


def gradients(model: nn.Module, at: Tensor, label: int) -> dict[str, Tensor]:
    """Return the gradient of the cross-entropy of one example, in the model's own precision."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = functional.cross_entropy(model(at.unsqueeze(0)), torch.tensor([label]))
    values = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(parameters, values, strict=True))


def errors(
    model: nn.Module, at: Tensor, label: int, *, upload: Upload, lr: float
) -> dict[str, Tensor]:
    """Return what a server's gradient is wrong by after one step on one example.

    The client computes in the types of its model, float32 as a rule.

    Args:
        model: With weights that float32 holds; left as it is.
        at: The input, shape (*input_shape).
        label: Its class.
        upload: What the client uploads, in float32.
        lr: Learning rate, for weights.
    """
    single, double = copy.deepcopy(model), doubled(model)
    received = gradients(single, at.float(), label)
    if upload == "weights":
        sent = {name: p.detach() for name, p in single.named_parameters()}
        trained = {name: sent[name] - lr * received[name] for name in received}
        received = {name: (sent[name] - trained[name]).double() / lr for name in received}
    true = gradients(double, at.double(), label)
    return {name: received[name].double() - true[name] for name in received}


def levels(
    gradient_errors: Mapping[str, Tensor], gradient: Mapping[str, Tensor], noise: float = 0.0
) -> dict[str, float]:
    """Return the standard deviation of each parameter's error, rounding and noise together.

    Args:
        gradient_errors: Of `errors`.
        gradient: The gradient.
        noise: Standard deviation of noise that the client adds to every entry.
    """
    size = math.sqrt(sum(float(value.square().sum()) for value in gradient.values()))
    size /= math.sqrt(sum(value.numel() for value in gradient.values()))
    least = max(FLOOR * size, torch.finfo(torch.float32).tiny)
    rounding = {name: float(value.square().mean()) for name, value in gradient_errors.items()}
    return {name: math.sqrt(value + noise**2 + least**2) for name, value in rounding.items()}


def rounding(weight: Tensor, lr: float) -> float:
    """Return ulp(w)/(√12·lr), root mean square: the error of a gradient from float32 weights."""
    return float(ulp(weight).square().mean().sqrt()) / (math.sqrt(12) * lr)


def signal_to_noise(gradient_errors: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> float:
    """Return by how many dB the gradient exceeds the error on it."""
    power = sum(float(value.double().square().sum()) for value in gradient.values())
    error = sum(float(value.square().sum()) for value in gradient_errors.values())
    return 10 * math.log10(power / error) if power and error else math.inf if power else -math.inf
