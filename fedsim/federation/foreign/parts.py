"""The model and the adversary's examples of another app's recording, as its config says."""

import torch
from torch import nn

from adversary.labels.head import HeadAlone
from fedsim import data, models
from fedsim.config import Config, Foreign
from fedsim.config import Data as DataSection
from fedsim.core.errors import ConfigError
from fedsim.core.form import KINDS, PAD
from fedsim.core.types import Params
from fedsim.core.vocabulary import BOS, EOS, Vocabulary
from fedsim.data import Dataset
from fedsim.federation.foreign.twin import without_counters


def model_of(config: Config) -> nn.Module:
    """Return the app's model, its twin, or what stands for it where only the head is given.

    Raises:
        ConfigError: It cannot be built, or does not take such examples.
    """
    foreign = config.foreign
    assert foreign is not None
    if foreign.head_only:
        shape, classes = foreign.input_shape, foreign.num_classes
        bias = torch.zeros(classes) if "bias" in foreign.arrays else None
        return HeadAlone(torch.zeros(classes, *shape), bias)
    try:
        model = models.build(config.model, nothing(foreign).form, seed=config.seed)
    except ConfigError as error:
        # Of a model that takes a dict, token ids, or anything else than one tensor of numbers.
        raise ConfigError(
            f"{error}; label attacks need only --head-weight and --head-bias"
        ) from None
    return without_counters(model, len(foreign.arrays)) if foreign.arrays else model


def load_sent(model: nn.Module, tape: Params) -> None:
    """Put frozen parameters that an app sends all the same into the model."""
    with torch.no_grad():
        for name, value in models.base_of(model).items():
            if name in tape and tape[name].shape == value.shape:
                value.copy_(tape[name])


def loaded(config: Config) -> Dataset | None:
    """Return the adversary's data set, where one is told."""
    foreign = config.foreign
    if foreign is None or foreign.auxiliary is None:
        return None
    section = DataSection(
        name=foreign.auxiliary, root=foreign.auxiliary_root, limit=foreign.auxiliary_limit
    )
    return data.alone(section, config.seed).dataset


def examples_of(config: Config) -> Dataset | None:
    """Return the adversary's own examples, or None.

    Raises:
        ConfigError: They are not of the app's shape or classes.
    """
    dataset, foreign = loaded(config), config.foreign
    if dataset is None or foreign is None:
        return None
    if dataset.input_shape != foreign.input_shape or dataset.num_classes != foreign.num_classes:
        raise ConfigError(
            f"--auxiliary: must have {foreign.num_classes} classes of shape "
            f"{foreign.input_shape}, got {dataset.num_classes} of {dataset.input_shape}"
        )
    form = nothing(foreign).form
    if (dataset.form.vocabulary, dataset.form.kind) != (form.vocabulary, form.kind):
        size = dataset.form.vocabulary
        got = "numbers" if size is None else f"{KINDS[dataset.form.kind]} in {size} ids"
        raise ConfigError(f"--auxiliary: must be examples of what the app's model takes, got {got}")
    return dataset


def nothing(foreign: Foreign) -> Dataset:
    """Return a data set without examples, of what the app's model takes."""
    inputs = labels = torch.zeros(0, dtype=torch.int64)
    if foreign.vocabulary is None:
        inputs, vocabulary = torch.zeros(0, *foreign.input_shape), None
    else:
        inputs = torch.zeros(0, *foreign.input_shape, dtype=torch.int64)
        vocabulary = Vocabulary(tuple(map(_piece, range(foreign.vocabulary))))
    targets = inputs if foreign.task == "next" else None
    return Dataset(
        inputs=inputs,
        labels=labels,
        test_inputs=inputs,
        test_labels=labels,
        num_classes=foreign.num_classes,
        vocabulary=vocabulary,
        targets=targets,
        test_targets=targets,
    )


def _piece(token: int) -> bytes:
    """Return what stands for a token of another app's tokeniser: its id."""
    return f"[{token}]".encode() if token not in (PAD, BOS, EOS) else b""
