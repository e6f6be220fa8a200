"""The architectures by name, and the model that a config chooses."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from fedsim.config import Model
from fedsim.core.boundary import boundary
from fedsim.core.catalog import Entry, check_options, find_entry
from fedsim.core.form import Form
from fedsim.core.paths import user_path
from fedsim.core.records import Records
from fedsim.core.rng import global_stream
from fedsim.core.torch_settings import settings_kept
from fedsim.models.check import (
    SETTINGS,
    check_copies,
    check_loads,
    check_logits,
    check_module,
    check_repeats,
    check_state,
    check_trains,
)
from fedsim.models.guard import guarded
from fedsim.models.lora import adapted, check_installed
from fedsim.models.offline import offline
from fedsim.models.travels import load_base, travelling

MODULES = (
    "mlp",
    "cnn",
    "lenet",
    "lenet5",
    "rgap_cnn6",
    "resnet18",
    "vit",
    "gpt",
    "bert",
)
MODELS = Records[Entry]("fedsim.models", MODULES, "MODEL")


def build(model: Model, form: Form, *, seed: int) -> nn.Module:
    """Build the model that a config chooses, with initial weights that depend on the seed alone.

    A user's `package.module:function` (or class) is given `input_shape`, `num_classes` and
    `vocabulary`, the number of token ids, where it has parameters of these names.

    Raises:
        ConfigError: The name or an option is unknown, or the model cannot take the data.
    """
    if model.lora:
        check_installed()
    with settings_kept(SETTINGS, threads=False):  # a module may set them for its own main
        make = find_entry("model.name", model.name, MODELS, "models").make
    options = check_options("model", make, model.options, beside=type(model).model_fields)
    data: dict[str, Any] = {"input_shape": form.shape, "num_classes": form.num_classes}
    if form.vocabulary is not None:
        data["vocabulary"] = form.vocabulary
    parameters = inspect.signature(make).parameters
    options |= {name: value for name, value in data.items() if name in parameters}

    def built() -> nn.Module:
        with global_stream(seed, "model"):
            return _made(model, partial(make, **options), form)

    with settings_kept(SETTINGS):
        module = built()
        if model.name not in MODELS or model.lora:
            check_copies(model.name, module)
            check_trains(model.name, module, form)
            check_repeats(model.name, module, built, form)
            check_loads(model.name, built())
    return module


def _made(model: Model, make: Callable[[], object], form: Form) -> nn.Module:
    """Build a model, and let it see two examples once, so that layers made lazily are made now.

    Raises:
        ConfigError: It cannot be built, or does not fit the data.
    """
    name = model.name
    with boundary("model.name", f"'{name}' must be built"), offline(name):
        built = make()
    module = guarded(
        check_module(name, built),
        form.dtype,
        ids=form.vocabulary is not None,
        per_token=form.per_token,
        binary=form.binary,
    )
    check_logits(name, module, form)
    if model.lora:
        with boundary("model.lora", f"'{name}' must take adapters"):
            adapted(module, model.lora)
        check_logits(name, module, form)
    check_state(name, module)
    travelling(module)
    if model.base is not None:
        load_base(module, user_path("model.base", model.base))
    return module
