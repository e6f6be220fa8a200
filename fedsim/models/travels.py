"""What of a model travels: its state without what never trains, and each parameter once.

Frozen parameters are the public base: every party builds them, and no update holds them. A
parameter under several names stands in the state under its first.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedsim.core.errors import ConfigError
from fedsim.core.params import mismatch


def travelling(model: nn.Module) -> nn.Module:
    """Return the model, whose state from now on is what travels.

    `state_dict` leaves frozen parameters and second names out, and `load_state_dict` does without
    them. Deep copies do the same, whatever becomes trainable in them. A model that has neither is
    left as it is.

    Args:
        model: Built; it is known by now which of its parameters train.
    """
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    aliases = _aliases(model)
    if left_out := frozenset((*frozen, *aliases)):
        model.register_state_dict_post_hook(partial(_leave_out, names=left_out))
        model.register_load_state_dict_pre_hook(
            partial(_fill_in, names=left_out, first=aliases)  # pyright: ignore[reportArgumentType]
        )
    return model


def base_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that do not travel, by name; they share the model's memory."""
    state = model.state_dict()
    return {n: value.detach() for n, value in model.named_parameters() if n not in state}


def load_base(model: nn.Module, path: Path) -> None:
    """Put the frozen parameters in a safetensors file, such as a run's base, into a model.

    Raises:
        ConfigError: The file cannot be read, or is not of this model's frozen parameters.
    """
    base = base_of(model)
    try:
        values = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"model.base: must be a safetensors file, got {path} ({error})") from None
    if reason := mismatch(values, base):
        raise ConfigError(f"model.base: must hold the model's frozen parameters, got {reason}")
    with torch.no_grad():
        for name, value in base.items():
            value.copy_(values[name])


def digest_of_base(model: nn.Module) -> str:
    """Return a hash of the parameters that do not travel; empty where all do."""
    base = base_of(model)
    digest = hashlib.blake2b(digest_size=16)
    for name, value in base.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest() if base else ""


def _aliases(model: nn.Module) -> dict[str, str]:
    """Return every further name of a parameter → its first."""
    first = {id(value): name for name, value in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[id(value)] for name, value in every if first[id(value)] != name}


def _leave_out(
    _: nn.Module, state: dict[str, Any], prefix: str, __: Any, *, names: frozenset[str]
) -> None:
    for name in names:
        state.pop(prefix + name, None)


def _fill_in(
    model: nn.Module,
    state: dict[str, Any],
    prefix: str,
    *_: Any,
    names: frozenset[str],
    first: Mapping[str, str],
) -> None:
    """Give what is to be loaded the values that do not travel."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        origin = prefix + first.get(name, name)
        value = state[origin] if origin in state else parameters[name].detach()
        state.setdefault(prefix + name, value)
