"""The architectures by name, and the model that a config chooses."""

import inspect
from typing import Any

from torch import nn

from fedsim.config import Model
from fedsim.core.catalog import Entry, check_options, collect, find_entry
from fedsim.core.errors import ConfigError
from fedsim.core.rng import global_stream
from fedsim.models.check import check_model
from fedsim.models.layers import Shape

MODULES = (
    "mlp",
    "cnn",
    "lenet",
    "lenet5",
    "rgap_cnn6",
    "resnet18",
)
MODELS: dict[str, Entry] = collect("fedsim.models", MODULES, "MODEL")


def build(model: Model, input_shape: Shape, num_classes: int, *, seed: int) -> nn.Module:
    """Build the model that a config chooses, with initial weights that depend on the seed alone.

    A user's `package.module:function` (or class) is given `input_shape` and `num_classes` where
    it has parameters of these names.

    Raises:
        ConfigError: The name or an option is unknown, or the model cannot take the data.
    """
    make = find_entry("model.name", model.name, MODELS, "models").make
    options = check_options("model", make, model.options)
    data: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    parameters = inspect.signature(make).parameters
    options |= {name: value for name, value in data.items() if name in parameters}
    try:
        with global_stream(seed, "model"):
            built = make(**options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.name: '{model.name}' cannot be built ({error})") from None
    return check_model(model.name, built, input_shape, num_classes)
