"""The device of a run, and how many clients train together in its memory."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from fedsim.config import Config
from fedsim.config.engine import TOGETHER
from fedsim.core.boundary import boundary
from fedsim.core.devices import free_memory, moved, named, on, resolved
from fedsim.core.form import Form
from fedsim.models.fitting import fitting
from fedsim.models.trial import batch, step

if TYPE_CHECKING:
    from fedsim.run.prepare import Plan


def with_device(config: Config) -> Config:
    """Return the config with the device that its setting stands for on this machine.

    Raises:
        ConfigError: The machine has no such device.
    """
    device = resolved(config.engine.device)
    engine = config.engine.model_copy(update={"device": device})
    return config if engine == config.engine else config.model_copy(update={"engine": engine})


def on_cpu(config: Config) -> Config:
    """Return the config for what trains no client: a recording needs no device of the run's."""
    engine = config.engine.model_copy(update={"device": "cpu"})
    return config.model_copy(update={"engine": engine})


def with_batch(config: Config, model: nn.Module, form: Form) -> Config:
    """Return the config with how many clients train together, where it does not say.

    Raises:
        ConfigError: The model does not train on the device.
    """
    engine, device = config.engine, named(config.engine.device)
    if device.type != "cpu":
        _check_model(config.model.name, model, form, device)
    if engine.name != "batched" or engine.batch is not None:
        return config
    free = free_memory(device)
    size = TOGETHER if free is None else fitting(model, form, config.local.batch_size, free)
    return config.model_copy(update={"engine": engine.model_copy(update={"batch": size})})


def attacking_on(plan: "Plan", name: str) -> "Plan":
    """Return a plan whose attacks run the model on a device, wherever its clients trained.

    Args:
        plan: Of a recording.
        name: Of a device of this machine.

    Raises:
        ConfigError: The model does not train on the device.
    """
    device = named(name)
    if device.type != "cpu" and plan.config.foreign is None:  # which may have no whole model
        _check_model(plan.config.model.name, plan.model, plan.federated.dataset.form, device)
    return replace(plan, auxiliary=replace(plan.auxiliary, device=device))


def _check_model(name: str, model: nn.Module, form: Form, device: torch.device) -> None:
    """Let a copy of the model train on the device, and raise where it does not.

    Raises:
        ConfigError: It cannot.
    """
    with boundary("model.name", f"'{name}' must train on the device {device.type}"), on(device):
        step(moved(model, device).train(), *moved(batch(form), device))
