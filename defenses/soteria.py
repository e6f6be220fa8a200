"""Soteria: hide the coordinates of the representation that say most about the input."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from defenses.defense import Defense
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.errors import nearest
from fedsim.core.sgd import gradients
from fedsim.core.types import LocalTraining, Params


def soteria(*, layer: str = "head", rate: float = 0.5) -> Defense:
    """Zero the gradient of a linear layer for the inputs of it that would move the data most.

    Source: Sun, Li, Wang, Yang, Li, Chen, "Soteria: Provable Defense against Privacy Leakage in
    Federated Learning from Representation Perspective", CVPR 2021, section 4: of the representation
    r, the layer's input, those coordinates are dropped whose |r_i| / ‖∂r_i/∂x‖ is largest, because
    hiding them displaces the reconstruction most. As in its official code, the mask is one for the
    batch and acts on the layer's weight gradient, column by column. Unlike there, the ratio itself
    is averaged (there its inverse is summed, with 0.1 added to r), and coordinates that are off for
    the whole batch are dropped last (there first, though their columns are zero anyway).
    Made against input reconstruction; the bias and all other layers are exact, and it promises no
    privacy: an attacker that leaves the layer out gets past it (Balunović et al., ICLR 2022).

    Args:
        layer: Name of a linear layer whose input is the representation.
        rate: Share of the representation that is dropped; in [0, 1].

    Raises:
        ValueError: `rate` is outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: must be at least 0 and at most 1, got {rate}")

    return Defense(
        name="soteria",
        gradient=partial(masked_gradient, layer=layer, rate=rate),
        check=partial(_check, layer),
        kinds=("values",),
        apart=True,  # a batch's slopes would cancel to rounding errors
        promise=Promise(
            statement="hides part of one layer from reconstruction; everything else is exact"
        ),
    )


def masked_gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Float[Tensor, "batch *shape"],
    labels: Int[Tensor, " batch"],
    local: LocalTraining,
    generator: Generator,  # noqa: ARG001
    *,
    layer: str,
    rate: float,
) -> Sequence[Tensor]:
    """Return the batch gradient with the layer's columns of the exposing features zeroed."""
    x = inputs.detach().requires_grad_()
    logits, representation = _with_input_of(model, layer, x)
    loss = functional.cross_entropy(logits, labels, label_smoothing=local.label_smoothing)
    grads = gradients(loss, parameters, keep=True)
    dropped = exposing(representation, x, rate)
    return [
        g.masked_fill(dropped, 0.0) if name == f"{layer}.weight" else g
        for name, g in zip(parameters, grads, strict=True)
    ]


def _with_input_of(model: nn.Module, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the model's output, and what went into the layer."""
    inputs: list[Tensor] = []
    linear = model.get_submodule(layer)
    hook = linear.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        return model(x), inputs[0]
    finally:
        hook.remove()


def _check(layer: str, model: nn.Module, local: LocalTraining, sizes: Sequence[int]) -> None:  # noqa: ARG001
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if layer not in linears:
        hint = nearest(layer, linears) if linears else "the model has none"
        raise ValueError(f"soteria.layer: must be a linear layer, got '{layer}'; {hint}")


def exposing(r: Float[Tensor, "n features"], x: Float[Tensor, "n *shape"], rate: float) -> Tensor:
    """Return which share `rate` of the features has the largest mean |r_i| / ‖∂r_i/∂x‖.

    Args:
        r: Computed from `x`, one example from one row.
        x: Requires a gradient.
        rate: Share.
    """
    # One backward pass per feature; the rows do not mix, so that it serves all examples.
    slopes = [
        torch.autograd.grad(r[:, i].sum(), x, retain_graph=True)[0].flatten(1).norm(dim=1)
        for i in range(r.shape[1])
    ]
    # A feature that is off for an example has no slope, and hiding it hides nothing.
    ratio = (r.detach().abs() / torch.stack(slopes, dim=1).clamp(min=1e-12)).mean(dim=0)
    dropped = torch.zeros(len(ratio), dtype=torch.bool)
    dropped[ratio.argsort(descending=True, stable=True)[: round(rate * len(ratio))]] = True
    return dropped


DEFENSE = Entry("soteria", soteria, paper="Sun et al., CVPR 2021")
