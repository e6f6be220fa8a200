"""The model of an app: imported, built once, and run on zeros."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adversary.labels.head import Head, find_head
from adversary.workspace import workspace
from fedsim.core.errors import FedsimError, one_line
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.federation.foreign.config import SIZES
from fedsim.models.guard import guarded


@dataclass(frozen=True)
class Built:
    """A model that was built: its name, and what running it on zeros showed.

    Attributes:
        name: As `package.module:Class`.
        parameters: How many numbers.
        input_shape: The only usual size of image that fits; None where none does, or several.
        num_classes: Of its logits; None without a shape.
        head: Its last linear layer; None where there is none, or nothing could be run.
        labels: Whether label attacks may apply: False where it runs and gives no such logits.
    """

    name: str
    parameters: int
    input_shape: tuple[int, ...] | None
    num_classes: int | None
    head: Head | None
    labels: bool


def build(folder: Path, name: str) -> tuple[Built | None, str]:
    """Import and build the model; whatever it raises becomes a reason."""
    module, _, attribute = name.partition(":")
    try:
        # What it prints while it is imported is not this program's answer.
        with _importable(folder), redirect_stdout(sys.stderr):
            model = getattr(importlib.import_module(module), attribute)()
        if not isinstance(model, nn.Module):
            raise TypeError(f"{name} gives a {type(model).__name__}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, f"{name} cannot be built here ({one_line(error)})"
    shapes = _outputs(guarded(model, torch.float32))
    fitting = {shape: classes for shape, classes in shapes.items() if classes is not None}
    shape, classes = next(iter(fitting.items())) if len(fitting) == 1 else (None, None)
    head = None if shape is None or classes is None else _head(model, shape, classes)
    size = sum(parameter.numel() for parameter in model.parameters())
    labels = head is not None if shape else bool(fitting) or not shapes
    return Built(name, size, shape, classes, head, labels), ""


def _outputs(model: nn.Module) -> dict[tuple[int, ...], int | None]:
    """Return the usual shapes of images that a model takes → number of logits; None without."""
    outputs: dict[tuple[int, ...], int | None] = {}
    for shape in ((c, size, size) for c in (1, 3) for size in SIZES):
        try:
            with torch.no_grad(), redirect_stdout(sys.stderr):
                output = model.eval()(torch.zeros(2, *shape))
        except Exception:  # it does not take this one
            continue
        is_logits = isinstance(output, Tensor) and output.ndim == 2 and len(output) == 2
        outputs[shape] = output.shape[1] if is_logits else None
    return outputs


def _head(model: nn.Module, shape: tuple[int, ...], classes: int) -> Head | None:
    sent = {name: value.detach() for name, value in model.state_dict().items()}
    latest = Observation(sent, Update(1, "0", sent, 1), LocalTraining(1.0, 1))
    auxiliary = Auxiliary(model, classes, input_shape=shape)
    try:
        return find_head(workspace(View([latest]), auxiliary))
    except (ValueError, FedsimError):
        return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported inside the block."""
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))
