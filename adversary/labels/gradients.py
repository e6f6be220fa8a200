"""Gradients of auxiliary examples, by autodiff, as the model is evaluated."""

import warnings
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from adversary.placement import at_model
from adversary.workspace import Workspace, evaluating
from fedsim.core.examples import example_gradients, flat_rows
from fedsim.core.sgd import gradients
from fedsim.core.types import Params

TOGETHER = 500  # examples of one batch


def labelled(work: Workspace) -> tuple[Tensor, Int[Tensor, " n"]]:
    """Return the auxiliary inputs and labels, of an adversary that has them."""
    inputs, labels = work.auxiliary.inputs, work.auxiliary.labels
    assert inputs is not None
    assert labels is not None
    return inputs, labels


@at_model
def class_means(
    work: Workspace, names: Iterable[str]
) -> dict[str, Float[Tensor, "classes entries"]]:
    """Return each class's mean gradient at the model sent, per named tensor; 0 without examples."""
    labels, classes = labelled(work)[1], work.auxiliary.num_classes
    with evaluating(work, work.sent) as model:
        chosen = parameters_of(model, names)
        means = {name: torch.zeros(classes, value.numel()) for name, value in chosen.items()}
        for c in range(classes):
            places = (labels == c).nonzero()[:, 0]
            for some in places.split(TOGETHER):
                for name, slope in summed(work, model, chosen, some).items():
                    means[name][c] += slope.flatten().float() / len(places)
    return means


def summed(work: Workspace, model: nn.Module, parameters: Params, places: Tensor) -> Params:
    """Return the gradient of the summed loss of some examples, per parameter of the model."""
    inputs, labels = _batch(work, model, places)
    smoothing = work.local.label_smoothing
    loss = functional.cross_entropy(
        model(inputs), labels, reduction="sum", label_smoothing=smoothing
    )
    return dict(zip(parameters, gradients(loss, parameters), strict=True))


@at_model
def summed_sent(work: Workspace, places: Tensor, names: Iterable[str]) -> Params:
    """Return the gradient of the summed loss of some examples at the model sent, per tensor."""
    with evaluating(work, work.sent) as model:
        return summed(work, model, parameters_of(model, names), places)


@at_model
def example_rows(
    work: Workspace, state: Params, places: Tensor, names: Iterable[str]
) -> dict[str, Float[Tensor, "n entries"]]:
    """Return the gradient of each of some examples, per named tensor, as rows in float32."""
    with evaluating(work, state) as model:
        chosen = parameters_of(model, names)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")
                each = example_gradients(
                    model,
                    chosen,
                    *_batch(work, model, places),
                    label_smoothing=work.local.label_smoothing,
                )
        except (RuntimeError, ValueError):  # a model that does not run under `vmap`
            single = [summed(work, model, chosen, place) for place in places.split(1)]
            each = {name: torch.stack([one[name] for one in single]) for name in chosen}
    return {name: flat_rows(value).float() for name, value in each.items()}


def parameters_of(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Return some parameters of a model, in the order of the names."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in names}


def _batch(work: Workspace, model: nn.Module, places: Tensor) -> tuple[Tensor, Tensor]:
    inputs, labels = labelled(work)
    return inputs[places].to(next(model.parameters()).dtype), labels[places]
