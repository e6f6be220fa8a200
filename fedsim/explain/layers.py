"""The linear system of each layer: does the gradient determine the layer's input?"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from adversary.inversion.activations import ACTIVATIONS
from adversary.inversion.chain import chain, shares_weight, trains_weight
from adversary.inversion.identifiability import System, system, systems
from fedsim.core.errors import one_line
from fedsim.explain.explanation import Shape


def systems_of(model: nn.Module, at: Tensor) -> tuple[list[System], str | None, bool]:
    """Return the systems, why a recursion stops, if it does, and whether the model is a chain."""
    try:
        layers = chain(model, tuple(at.shape))
    except ValueError as error:
        return list(_called(model, at)), one_line(error), False
    weighted = [it for it in layers if it.kind in ("linear", "conv")]
    trains_alone = lambda module: trains_weight(module) and not shares_weight(model, module)
    fixed = [it for it in weighted if not trains_alone(it.module)]
    if fixed:
        what = f"{fixed[0].name} = {type(fixed[0].module).__name__}"
        kept = systems([it for it in layers if it not in fixed])
        return kept, f"{what}: must have a weight that is trained as it is, and its own", False
    activations = [it for it in layers if it.kind == "activation"]
    lost = [it for it in activations if ACTIVATIONS[type(it.module)].inverse is None]
    if not lost:
        return systems(layers), None, True
    last = lost[-1]
    return systems(layers), f"{last.name} = {type(last.module).__name__}: has no inverse", True


def others_of(model: nn.Module, of: Sequence[System]) -> list[str]:
    """Return the layers with trained parameters that are not among the systems."""
    names = {it.name for it in of}
    return [
        f"{name or 'model'} = {type(module).__name__}"
        for name, module in model.named_modules()
        if name not in names and any(it.requires_grad for it in module.parameters(recurse=False))
    ]


def _called(model: nn.Module, at: Tensor) -> Iterator[System]:
    """Return the system of each layer of a model with branches, as it is called."""
    calls: list[tuple[str, nn.Module, Shape, Shape]] = []
    handles = []
    copied = copy.deepcopy(model).eval()
    for name, module in copied.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and trains_weight(module):

            def record(of: nn.Module, given: tuple, out: Tensor, name: str = name) -> None:
                calls.append((name, of, tuple(given[0].shape[1:]), tuple(out.shape[1:])))

            handles.append(module.register_forward_hook(record))
    with suppress(Exception), torch.no_grad():  # what it raises stands in the verdict
        copied(at.unsqueeze(0))
    for place, (name, module, shape, out) in enumerate(calls):
        try:
            yield system(name, module, shape, out, head=place == len(calls) - 1)
        except ValueError:  # padding by other values, or on one side: there is no closed form
            continue
