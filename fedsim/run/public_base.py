"""The public base of a run: parameters of its model that never train, once per run folder.

In: a model. Out: `base.safetensors`, or the model with what stands in it. A later attack, maybe on
another machine, runs on the base that the clients had.
"""

from pathlib import Path

import torch
from torch import nn

from fedsim import models
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile, save_tensors
from fedsim.core.params import alike, mismatch

BASE = "base.safetensors"


def write_base(run: Path, model: nn.Module) -> None:
    """Write the parameters of a model that do not travel; nothing where all do."""
    if base := models.base_of(model):
        save_tensors(run / BASE, base, {})


def load_base(run: Path, model: nn.Module) -> None:
    """Put a run's base into a model; a run without one leaves it as it is.

    Raises:
        BadRecording: The file is damaged, or of another model.
    """
    base, path = models.base_of(model), run / BASE
    if not path.exists():
        return
    file = TensorFile(path)
    if reason := mismatch(file, base):
        raise BadRecording(f"{path}: must be of the run's model, got {reason}")
    with torch.no_grad():
        for name, value in base.items():
            value.copy_(file[name])


def check_base(run: Path, model: nn.Module) -> None:
    """Refuse to go on with another base than the run's: clients build it anew.

    Raises:
        BadRecording: The file is missing or damaged, or holds other values.
    """
    base, path = models.base_of(model), run / BASE
    if not base and not path.exists():
        return
    file = TensorFile(path)
    reason = mismatch(file, base)
    odd = [name for name in base if not reason and not alike(file[name], base[name])]
    if reason or odd:
        got = reason or f"other values of {odd[0]}"
        raise BadRecording(f"{path}: must be what the run's model is built with, got {got}")
