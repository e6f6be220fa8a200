"""Chains of PyTorch's own layers with a row of weights for each client: many models as one.

In: stacked weights, and the batches of as many clients. Out: what the model gives one by one; the
floats differ by rounding. The clients' channels stand side by side: their convolutions are one
convolution of as many groups, their linear layers one product of a batch of matrices. `vmap` would
do the same in twice the time: here nothing is put in another order between layers, and the bias
and the ReLU of a convolution come after its pooling, which commutes with both, on fewer values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core.types import Params
from fedsim.models.copying import keeps_nothing
from fedsim.models.pooling import FastPooling

Layer = Callable[[Params, Tensor], Tensor]
"""(stacked weights, values of shape (b, k, *shape)) → values."""

_OF_VALUES = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.GELU)
_OF_CHANNELS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Chain:
    """A model as layers that take stacked weights, in their order."""

    layers: Sequence[Layer]

    def __call__(
        self, weights: Params, inputs: Float[Tensor, "k b *shape"]
    ) -> Float[Tensor, "k b classes"]:
        """Return the logits of each client's batch.

        Args:
            weights: The model's parameters, a row for each client.
            inputs: The clients' batches.
        """
        values = inputs.transpose(0, 1)
        for layer in self.layers:
            values = layer(weights, values)
        return values.transpose(0, 1)


def chain_of(model: nn.Module) -> Chain | None:
    """Return a model as a chain; None where a layer is not one of those written here."""
    if type(model) is not nn.Sequential or not keeps_nothing(model):
        return None
    names, modules = [name for name, _ in model.named_children()], list(model)
    last = modules[-1] if modules else None
    if not isinstance(last, nn.Linear) or last.out_features < 2:  # the guard makes two logits of 1
        return None
    if len(names) < len(modules) or len(list(model.parameters())) < len(model.state_dict()):
        return None  # a layer or a weight stands in two places
    layers: list[Layer] = []
    while modules:
        layer, count = _first(names, modules)
        if layer is None:
            return None
        layers.append(layer)
        names, modules = names[count:], modules[count:]
    return Chain(layers)


def _first(names: Sequence[str], modules: Sequence[nn.Module]) -> tuple[Layer | None, int]:
    """Return the first layer of a chain, None where it cannot be one, and of how many modules."""
    module, name = modules[0], names[0]
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
        rest = modules[1:]
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        after = rest[relu] if len(rest) > relu else None
        if isinstance(after, nn.MaxPool2d) and not after.return_indices:
            return _pooled_convolution(name, module, after, relu=relu), 2 + relu
        return _convolution(name, module), 1
    if isinstance(module, nn.Linear):
        return _linear(name, module), 1
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return lambda _, values: values.flatten(2), 1
    if isinstance(module, _OF_VALUES):
        return lambda _, values: module(values), 1
    if isinstance(module, _OF_CHANNELS) and not getattr(module, "return_indices", False):
        return lambda _, values: _over_channels(module, values), 1
    return None, 1


def _linear(name: str, module: nn.Linear) -> Layer:
    def linear(weights: Params, values: Tensor) -> Tensor:
        rows = values.transpose(0, 1)
        matrices = weights[f"{name}.weight"].transpose(1, 2)
        if module.bias is None:
            products = torch.bmm(rows.flatten(1, -2), matrices)
        else:
            bias = weights[f"{name}.bias"].unsqueeze(1)
            products = torch.baddbmm(bias, rows.flatten(1, -2), matrices)
        return products.unflatten(1, rows.shape[1:-1]).transpose(0, 1)

    return linear


def _convolution(name: str, module: nn.Conv2d) -> Layer:
    def convolution(weights: Params, values: Tensor) -> Tensor:
        bias = None if module.bias is None else weights[f"{name}.bias"]
        return _convolved(module, weights[f"{name}.weight"], bias, values)

    return convolution


def _pooled_convolution(name: str, module: nn.Conv2d, pool: nn.MaxPool2d, *, relu: bool) -> Layer:
    """Return a convolution, its ReLU if it has one, and its pooling."""

    def pooled(weights: Params, values: Tensor) -> Tensor:
        values = _convolved(module, weights[f"{name}.weight"], None, values)
        values = _over_channels(pool, values)
        if module.bias is not None:
            values = values + weights[f"{name}.bias"][..., None, None]
        return functional.relu(values) if relu else values

    return pooled


def _convolved(module: nn.Conv2d, weight: Tensor, bias: Tensor | None, values: Tensor) -> Tensor:
    """Return a convolution of each client's channels with its own weights."""
    channels = functional.conv2d(
        values.flatten(1, 2),
        weight.flatten(0, 1),
        None if bias is None else bias.flatten(),
        module.stride,
        module.padding,
        module.dilation,
        module.groups * len(weight),
    )
    return channels.unflatten(1, weight.shape[:2])


def _over_channels(module: nn.Module, values: Tensor) -> Tensor:
    """Return what a layer that takes each channel by itself gives."""
    with FastPooling():
        if values.ndim == 4:  # images without channels: the clients stand in their place
            return module(values)
        return module(values.flatten(1, 2)).unflatten(1, values.shape[1:3])
