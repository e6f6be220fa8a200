"""The model and the adversary's examples of another app's recording, as its config says."""

import torch
from torch import nn

from adversary.labels.head import HeadAlone
from fedsim import data, models
from fedsim.config import Config
from fedsim.config import Data as DataSection
from fedsim.core.errors import ConfigError
from fedsim.core.form import Form
from fedsim.data import Dataset
from fedsim.federation.foreign.twin import without_counters


def model_of(config: Config) -> nn.Module:
    """Return the app's model, its twin, or what stands for it where only the head is given.

    Raises:
        ConfigError: It cannot be built, or does not take such examples.
    """
    foreign = config.foreign
    assert foreign is not None
    shape, classes = foreign.input_shape, foreign.num_classes
    if foreign.head_only:
        bias = torch.zeros(classes) if "bias" in foreign.arrays else None
        return HeadAlone(torch.zeros(classes, *shape), bias)
    try:
        model = models.build(config.model, Form(shape, classes), seed=config.seed)
    except ConfigError as error:
        # Of a model that takes a dict, token ids, or anything else than one tensor of numbers.
        raise ConfigError(
            f"{error}; label attacks need only --head-weight and --head-bias"
        ) from None
    return without_counters(model, len(foreign.arrays)) if foreign.arrays else model


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
    return dataset


def nothing(shape: tuple[int, ...], classes: int) -> Dataset:
    """Return a data set without examples."""
    inputs, labels = torch.zeros(0, *shape), torch.zeros(0, dtype=torch.int64)
    return Dataset(
        inputs=inputs, labels=labels, test_inputs=inputs, test_labels=labels, num_classes=classes
    )
