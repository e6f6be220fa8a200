"""Tangents of many inputs at once: linear layers, convolutions and norms that are called once.

A layer's gradient is dW = dz xᵀ (summed over places), so that the tangents of x and dz are enough,
and all inputs go through the model as one batch. Of a norm x is what it multiplies by its weight.
Which layers may be treated so is not read off their type alone: the result is compared with a
product that autograd computes of their weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from adversary.inversion.chain import zeros_around
from adversary.inversion.gram import AFFINE, CONVS, Signals, View, normalised
from adversary.inversion.products import Products, agree
from fedsim.core.attention import plain_attention

Moved = tuple[dict[str, Signals], dict[str, Signals]]  # x and dz of layers, and their tangents


def layers_of(
    model: nn.Module, at: Tensor, label: int, generator: Generator
) -> dict[str, nn.Module]:
    """Return the layers, by name, whose tangents along a random direction are those of autograd.

    A weight that is also used elsewhere, a layer whose first dimension is not the batch and one
    that mixes examples are left out.

    Args:
        model: In the mode in which it is looked at; left as it is.
        at: The input, shape (*input_shape).
        label: Its class.
        generator: Draws the directions.
    """
    layers = _candidates(model, at)
    names = {name: parameters_of(model, it) for name, it in layers.items()}
    if not layers:
        return {}
    v = torch.randn(2, *at.shape, generator=generator, dtype=at.dtype)
    every = [name for each in names.values() for name in each]
    products = Products(model, every, at[None], torch.tensor([label]))
    moved_by = products.push(v[1:].unsqueeze(1))
    expected = dict(zip(every, (it[0] for it in moved_by), strict=True))
    try:
        with frozen(model):
            points, moved = tangents(model, layers, at, label, v)
    except RuntimeError:  # a layer does not depend on the input, or takes no batch of copies
        return {}
    return {
        name: module
        for name, module in layers.items()
        if _right(module, points[name], moved[name], [expected[n] for n in names[name]])
    }


def _candidates(model: nn.Module, at: Tensor) -> dict[str, nn.Module]:
    """Return linear layers, convolutions and norms that are called once, with all they train."""
    calls: dict[str, int] = {}
    handles = []
    candidates = {
        name: module
        for name, module in model.named_modules()
        if _plain(module) and _trained(module)
    }
    for name, module in candidates.items():
        count = lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1})
        handles.append(module.register_forward_hook(count))
    try:
        with torch.no_grad(), plain_attention():
            model(at.unsqueeze(0))
    finally:
        for handle in handles:
            handle.remove()
    return {name: module for name, module in candidates.items() if calls.get(name) == 1}


def _plain(module: nn.Module) -> bool:
    if isinstance(module, CONVS):
        return zeros_around(module) is not None
    if isinstance(module, AFFINE):  # by whose weights the output is divided
        return isinstance(module.weight, Tensor) and bool((module.weight != 0).all())
    return isinstance(module, nn.Linear)


def _trained(module: nn.Module) -> bool:
    kept = {name: it for name, it in module.named_parameters() if it is not None}
    return kept.keys() in ({"weight"}, {"weight", "bias"}) and all(
        it.requires_grad for it in kept.values()
    )


def parameters_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Return the model's names of a layer's weight and bias."""
    names = {id(it): name for name, it in model.named_parameters()}
    parts = (module.weight, getattr(module, "bias", None))
    return [names[id(it)] for it in parts if isinstance(it, Tensor)]


def _right(module: nn.Module, at: Signals, moved: Signals, expected: list[Tensor]) -> bool:
    if len(moved.x) != 2 or len(moved.dz) != 2:
        return False
    try:
        values = _gradient(module, at, Signals(moved.x[1:], moved.dz[1:]))
    except RuntimeError:  # the first dimension of its input is not the batch
        return False
    shaped = [it.view(like.shape) for it, like in zip(values, expected, strict=False)]
    return agree(shaped, expected)


def _gradient(module: nn.Module, at: Signals, moved: Signals) -> tuple[Tensor, Tensor]:
    """Return the tangents of the gradient of a layer's weight and bias."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Linear):
        x, dz, x_moved, dz_moved = (it.flatten(0, -2) for it in (at.x, at.dz, moved.x, moved.dz))
        return dz_moved.mT @ x + dz.mT @ x_moved, dz_moved.sum(dim=0)
    parts = View(module, (), weight.numel(), 1, Generator()).reduced(at, moved)
    return parts.x, parts.dz


def tangents(
    model: nn.Module, layers: Mapping[str, nn.Module], at: Tensor, label: int, chunk: Tensor
) -> Moved:
    """Return x and dz of every layer, and their derivatives along a chunk of directions.

    The derivative of f along v is that of ⟨∂⟨f, u⟩/∂x, v⟩ by u, for every copy of the input.
    """
    count = len(chunk)
    copies = at.expand(count, *at.shape).clone().requires_grad_()
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in layers.items():

        def keep(of: nn.Module, given: tuple, out: Tensor, name: str = name) -> Tensor:
            outputs[name] = out
            inputs[name] = normalised(of, out) if isinstance(of, AFFINE) else given[0]
            return out.clone()  # an activation in place must not change what is kept

        handles.append(module.register_forward_hook(keep))
    try:
        with plain_attention():
            logits = model(copies)
    finally:
        for handle in handles:
            handle.remove()
    loss = functional.cross_entropy(logits, torch.full((count,), label), reduction="sum")
    names = list(layers)
    slopes = _slopes(loss, [outputs[name] for name in names], create_graph=True)
    signals = [inputs[name] for name in names] + list(slopes)
    dummies = [torch.zeros_like(value, requires_grad=True) for value in signals]
    sum_ = torch.stack([(a * b).sum() for a, b in zip(signals, dummies, strict=True)]).sum()
    (pulled,) = _slopes(sum_, [copies], create_graph=True)
    moved = _slopes((pulled * chunk).sum(), dummies)
    n = len(names)
    points = {
        name: Signals(signals[i][:1].detach(), slopes[i][:1].detach())
        for i, name in enumerate(names)
    }
    return points, {name: Signals(moved[i], moved[n + i]) for i, name in enumerate(names)}


def _slopes(of: Tensor, by: Sequence[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Return the derivatives of a sum; 0 by what it does not depend on."""
    return torch.autograd.grad(
        of, by, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for its gradient: ten times faster."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()
