"""Checks of a model: whether it fits the data, and which of its layers look beyond one example."""

import torch
from torch import nn

from fedsim.core.errors import ConfigError
from fedsim.models.layers import Shape


def check_model(name: str, model: object, input_shape: Shape, num_classes: int) -> nn.Module:
    """Return the model if it holds each parameter once and gives a logit per class.

    Raises:
        ConfigError: It does not, or it is no torch module.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name: must build a torch module, got {type(model).__name__}")
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if tied := sorted(set(names) - {name for name, _ in model.named_parameters()}):
        raise ConfigError(
            f"model.name: '{name}' must hold each parameter under one name, got {tied[0]} twice"
        )
    shape = _output_shape(name, model, input_shape)
    if shape != (2, num_classes):
        raise ConfigError(
            f"model.name: '{name}' must give {num_classes} logits per example, "
            f"got shape {shape} for 2 examples"
        )
    return model


def trainable(model: nn.Module) -> tuple[str, ...]:
    """Return the names that training moves; the rest of the state are buffers."""
    return tuple(name for name, value in model.named_parameters() if value.requires_grad)


def mixing_layer(model: nn.Module) -> str | None:
    """Return the first layer whose output for one example depends on the others, or None."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name} = {type(module).__name__}"
    return None


def remembering_layer(model: nn.Module) -> str | None:
    """Return the first layer that keeps statistics of the data, which would be uploaded as is."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            return f"{name} = {type(module).__name__}"
    return None


def _output_shape(name: str, model: nn.Module, input_shape: Shape) -> Shape:
    """Return the shape of the model's output for two examples."""
    training = model.training
    try:
        with torch.no_grad():
            return tuple(model.eval()(torch.zeros(2, *input_shape)).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"model.name: '{name}' must take inputs of shape {input_shape} ({reason})"
        ) from None
    finally:
        model.train(training)
