"""LoRA: low-rank adapters beside frozen layers, by peft.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. A layer W
becomes W + (alpha / rank)·B·A, of which A and B train. B is 0 at first, so that the model is as it
was.
"""

import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

from fedsim.config import Lora
from fedsim.core.errors import ConfigError

KINDS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)
FUSED = "Conv1D"  # transformers' linear layer with a transposed weight, as in GPT-2
SHOWN = 12  # names in a message


def check_installed() -> None:
    """Refuse LoRA where peft is not installed.

    Raises:
        ConfigError: It is not.
    """
    if find_spec("peft") is None:
        raise ConfigError("model.lora: needs peft, got no such package; install fedsim[text]")


def adapted(model: nn.Module, lora: Lora) -> nn.Module:
    """Put adapters beside layers of a model, and freeze the rest of it but for `lora.train`.

    Args:
        model: Changed in place. All of its layers must be made.
        lora: Rank, scale, and names of layers.

    Raises:
        ConfigError: A name matches no layer.
    """
    layers = {name: it for name, it in model.named_modules() if _takes_adapter(it) and name}
    modules = dict(model.named_modules())
    for key, names, choices in (("targets", lora.targets, layers), ("train", lora.train, modules)):
        for name in names:
            if not any(_matches(it, name) for it in choices):
                raise ConfigError(f"model.lora.{key}: must be {_shown(choices)}, got '{name}'")
    import peft  # pyright: ignore[reportMissingImports]

    options: dict[str, Any] = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": [name for name in layers if _any_matches(name, lora.targets)],
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # peft sets it for each layer itself
        peft.inject_adapter_in_model(peft.LoraConfig(**options), model)
    for name, module in modules.items():
        if _any_matches(name, lora.train):
            module.requires_grad_()
    return model


def _takes_adapter(module: nn.Module) -> bool:
    return type(module) in KINDS or type(module).__name__ == FUSED


def _matches(name: str, wanted: str) -> bool:
    """Return whether a module is called so, or ends so."""
    return name == wanted or name.endswith(f".{wanted}")


def _any_matches(name: str, wanted: Sequence[str]) -> bool:
    return any(_matches(name, each) for each in wanted)


def _shown(names: Sequence[str] | dict[str, nn.Module]) -> str:
    """Return the names to choose from, short where they are words."""
    short = list(dict.fromkeys(_short(names)))
    more = f" or {len(short) - SHOWN} more" if len(short) > SHOWN else ""
    return f"layers of the model ({', '.join(short[:SHOWN]) or 'none'}{more})"


def _short(names: Sequence[str] | dict[str, nn.Module]) -> Iterator[str]:
    for name in filter(None, names):
        last = name.rpartition(".")[2]
        yield name if last.isdecimal() else last
