"""A model as a chain of layers, each of which a reconstruction walks back through."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from adversary.inversion.activations import ACTIVATIONS
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator

Shape = tuple[int, ...]
RECTIFIERS = ("relu", "relu_")
USED = 1e-3  # share of a gradient by which rounding does not change it


class NotWalkableError(NotApplicable):
    """A layer cannot be walked back through, whatever the update; the sentence names it."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a chain.

    Attributes:
        name: As in `named_modules`; its parameters are `name.weight` and `name.bias`.
        kind: What it does.
        module: The layer.
        shape: Of its input, without the batch.
        out: Of its output.
    """

    name: str
    kind: Literal["linear", "conv", "activation", "flatten"]
    module: nn.Module
    shape: Shape
    out: Shape

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str | None:
        """The name of its bias, where it has one."""
        return None if getattr(self.module, "bias", None) is None else f"{self.name}.bias"


def chain(model: nn.Module, shape: Shape) -> list[Layer]:
    """Return the layers of a model that is nothing but one layer after another.

    Convolutions with any stride, padding by zeros and one group, linear layers, activations,
    `Flatten`; `Identity` and dropout with p = 0 are left out.

    Args:
        model: In the order of `nn.Sequential`, nested or not.
        shape: Of one input.

    Raises:
        NotWalkableError: It has branches, or a layer that cannot be walked back through.
    """
    layers = []
    for name, module in _leaves(model, ""):
        if passes(module):
            continue
        kind = _kind(name, module)
        with torch.no_grad():
            parameter = next(iter(module.parameters()), torch.zeros(0))
            out = tuple(module(torch.zeros(1, *shape, dtype=parameter.dtype)).shape[1:])
        layers.append(Layer(name, kind, module, shape, out))
        shape = out
    return layers


def check_trained(model: nn.Module, layers: list[Layer]) -> None:
    """Refuse layers of a chain whose gradients are not all in the update, each by itself.

    Raises:
        NotWalkableError: A layer is frozen, or its weight is another one's too.
    """
    for layer in layers:
        if layer.kind not in ("linear", "conv"):
            continue
        what = f"{layer.name} = {type(layer.module).__name__}"
        if not trains_weight(layer.module):
            raise NotWalkableError(f"{what}: must be trained as it is, got a frozen layer")
        if shares_weight(model, layer.module):
            raise NotWalkableError(f"{what}: must have a weight of its own, got a tied one")


def passes(module: nn.Module) -> bool:
    """Return whether a layer returns its input: `Identity`, or dropout with p = 0."""
    dropout = isinstance(module, nn.modules.dropout._DropoutNd)
    return isinstance(module, nn.Identity) or (dropout and not drops_out(module))


def drops_out(module: nn.Module) -> bool:
    """Return whether a layer sets random entries to zero in training: not with p = 0."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    return isinstance(module, nn.MultiheadAttention) and module.dropout > 0


def shares_weight(model: nn.Module, module: nn.Module) -> bool:
    """Return whether a layer's weight is another one's too, so that its gradient is a sum."""
    every = model.named_parameters(remove_duplicate=False)
    return sum(value is module.weight for _, value in every) > 1


def trains_weight(module: nn.Module) -> bool:
    """Return whether a layer's weight and bias are trained as they are, none of them computed."""
    parts = (module.weight, getattr(module, "bias", None))
    return all(it is None or (isinstance(it, nn.Parameter) and it.requires_grad) for it in parts)


def zeros_around(conv: nn.Conv1d | nn.Conv2d) -> tuple[int, ...] | None:
    """Return how many zeros a convolution adds on either side of each axis.

    None if it adds other values, or more on one side ("same" with an even kernel).
    """
    around = list(reversed(conv._reversed_padding_repeated_twice))
    return (
        tuple(around[::2]) if conv.padding_mode == "zeros" and around[::2] == around[1::2] else None
    )


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential):
        for key, child in module._modules.items():  # named_children leaves out a second use
            assert child is not None
            yield from _leaves(child, f"{name}.{key}" if name else key)
    elif not name or any(True for _ in module.children()):
        raise NotWalkableError(
            f"{name or 'model'} = {type(module).__name__}: layers must follow one another in "
            "nn.Sequential; a layer with branches cannot be walked back through"
        )
    else:
        yield name, module


def _kind(name: str, module: nn.Module) -> Literal["linear", "conv", "activation", "flatten"]:
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Flatten) and module.start_dim == 1:
        return "flatten"
    if type(module) in ACTIVATIONS:
        return "activation"
    what = f"{name} = {type(module).__name__}"
    if isinstance(module, nn.Conv2d):
        if module.groups != 1 or zeros_around(module) is None:
            raise NotWalkableError(f"{what}: must have one group and as many zeros on either side")
        return "conv"
    raise NotWalkableError(f"{what}: cannot be walked back through")


def grad_input(layer: Layer, weight: Tensor, out: Tensor) -> Tensor:
    """Return dL/d(input), (n, *shape), of a linear or convolutional layer from dL/d(output)."""
    if layer.kind == "linear":
        return out @ weight
    conv = layer.module
    assert isinstance(conv, nn.Conv2d)
    at = torch.zeros(len(out), *layer.shape, dtype=out.dtype, requires_grad=True)
    with torch.enable_grad():
        outputs = functional.conv2d(
            at,
            weight,
            None,
            conv.stride,
            conv.padding,
            conv.dilation,  # type: ignore[arg-type]
        )
        return torch.autograd.grad(outputs, at, out)[0]


def first_linear(model: nn.Module, shape: Shape) -> str:
    """Return the name of the linear layer that takes the inputs themselves.

    The model is run once, on random inputs, whatever comes after that layer.

    Raises:
        ValueError: There is none, it has no bias, or it is called several times.
    """
    probe = _probe(model, shape)
    calls: list[tuple[str, nn.Module, bool]] = []

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            first = inputs[0] if inputs else None
            whole = (
                isinstance(first, Tensor)
                and first.shape[-1] == probe[0].numel()  # not each entry by itself
                and torch.equal(first.flatten(1), probe.flatten(1))
            )
            calls.append((name, module, whole))

        return hook

    parts = [(name, module) for name, module in model.named_modules() if _has_weights(module)]
    hooks = [module.register_forward_pre_hook(look(name)) for name, module in parts]
    try:
        with torch.no_grad():
            model(probe)
    finally:
        for hook in hooks:
            hook.remove()
    name, module, whole = calls[0]
    if not isinstance(module, nn.Linear) or not whole:
        raise NotApplicable(f"{name} = {type(module).__name__}: the first layer must be linear")
    if module.bias is None:
        raise NotApplicable(f"{name}: must have a bias")
    if (times := [it for _, it, _ in calls].count(module)) > 1:
        raise NotApplicable(f"{name}: must be called once, got {times} calls")
    if not trains_weight(module):
        raise NotApplicable(f"{name}: must be trained as it is, got a frozen layer")
    if shares_weight(model, module):
        raise NotApplicable(f"{name}: must have a weight of its own, got a tied one")
    if not _used_once(model, name, probe):
        raise NotApplicable(f"{name}: must have a weight that is used once, got one used again")
    return name


def _used_once(model: nn.Module, name: str, probe: Tensor) -> bool:
    """Return whether the gradient of the first layer's weight is its bias's, times the input.

    A weight that the model uses elsewhere, such as backwards in a decoder, has a sum. True where it
    cannot be said.
    """
    working = copy.deepcopy(model).eval()  # where no example depends on others
    with torch.enable_grad():
        logits = working(probe[:1])
        if not isinstance(logits, Tensor) or not logits.requires_grad:
            return True
        loss = logits.flatten()[0] - logits.logsumexp(-1).sum()
        trained = [working.get_parameter(f"{name}.{it}") for it in ("weight", "bias")]
        parts = torch.autograd.grad(loss, trained, materialize_grads=True)
    weight, bias = (part.double() for part in parts)
    apart = weight - bias[:, None] * probe[:1].double().flatten()
    return bool(apart.norm() <= USED * weight.norm()) or not bool(weight.isfinite().all())


def follows(model: nn.Module, name: str, shape: Shape) -> str:
    """Return the type of the module that comes after another one, in order of their names.

    "ReLU" also where the model calls the function, on the layer's own output.
    """
    if _rectifies(model, name, shape):
        return nn.ReLU.__name__
    leaves = [(n, it) for n, it in model.named_modules() if not any(True for _ in it.children())]
    names = [n for n, it in leaves if n == name or not passes(it)]
    place = names.index(name) + 1
    return type(model.get_submodule(names[place])).__name__ if place < len(names) else "nothing"


class _Rectified(TorchFunctionMode):
    """Notes whether ReLU takes one of some tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.reached = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        taken = args[0] if args else (kwargs or {}).get("input")
        if getattr(func, "__name__", "") in RECTIFIERS:
            self.reached |= any(taken is it for it in self.outputs)
        return func(*args, **kwargs or {})


def _rectifies(model: nn.Module, name: str, shape: Shape) -> bool:
    called = _Rectified()
    keep = lambda _module, _inputs, output: called.outputs.append(output)
    hook = model.get_submodule(name).register_forward_hook(keep)
    try:
        with torch.no_grad(), called:
            model(_probe(model, shape))
    finally:
        hook.remove()
    return called.reached


def _probe(model: nn.Module, shape: Shape) -> Tensor:
    parameter = next(iter(model.parameters()))
    return torch.rand(2, *shape, generator=generator(0, "first layer"), dtype=parameter.dtype)


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
