"""What every reconstruction needs of a model and of what the adversary knows, in one sentence."""

import torch

from adversary.inversion.reading import batch_size
from adversary.inversion.rows import still
from adversary.inversion.setting import PROBED, setting_of
from adversary.labels.head import input_shape
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, View


def check_inputs(view: View, auxiliary: Auxiliary) -> None:
    """Refuse inputs that are whole numbers, or that the model does not take.

    Raises:
        NotApplicable: Their shape is not known, too.
    """
    if reason := whole_numbers(auxiliary):
        raise NotApplicable(reason)
    if reason := view.memory.run.get(_misfit, auxiliary, lambda: _misfit(auxiliary)):
        raise NotApplicable(reason)


def check_twice(view: View, auxiliary: Auxiliary) -> None:
    """Refuse as `check_inputs`, and a model whose gradient cannot be differentiated in the inputs.

    Raises:
        NotApplicable: See there.
        ValueError: The client told no number of examples.
    """
    check_inputs(view, auxiliary)
    local, count = view.latest.local, min(batch_size(view.latest), PROBED)
    compute = lambda: _flat(auxiliary, local, count)
    if reason := view.memory.run.get(_flat, (auxiliary, local, count), compute):
        raise NotApplicable(reason)


def whole_numbers(auxiliary: Auxiliary) -> str:
    """Return why inputs cannot be reconstructed, empty if they can: ids have no gradient."""
    inputs = auxiliary.inputs
    if inputs is None or inputs.is_floating_point():
        return ""
    return "inputs: must be real numbers for a reconstruction, got whole numbers"


def _misfit(auxiliary: Auxiliary) -> str:
    """Return why the model does not take an input of the known shape; empty if it does."""
    model, shape = still(auxiliary.model).eval(), input_shape(auxiliary)
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    probe = torch.rand(2, *shape, generator=generator(0, "applicable"), dtype=torch.float64)
    try:
        with torch.no_grad(), global_stream(0, "applicable"):
            model(probe.to(dtype))
    except PASSING:
        raise
    except Exception as error:
        rule = "input_shape: must be one that the model takes"
        return f"{rule}, got {tuple(shape)} ({explained(error)})"
    return ""


def _flat(auxiliary: Auxiliary, local: LocalTraining, count: int) -> str:
    reason = setting_of(auxiliary, local, count).flat
    rule = "model: must have a gradient that can be differentiated"
    return f"{rule}: {reason}" if reason else ""
