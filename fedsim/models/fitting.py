"""How many clients train together in the free memory of a device.

In: a model, the form of its data, examples of a step, bytes. Out: a number of clients.
"""

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from fedsim.core.form import Form
from fedsim.models.copying import copied
from fedsim.models.trial import batch, step

STATES = 6  # of a client: weights, their copy, gradients, momentum, anchor, and what is on its way
SHARE = 0.5  # of free memory that clients may take
MOST = 1024  # clients that train together; more are hardly faster


def fitting(model: nn.Module, form: Form, batch_size: int, free: int) -> int:
    """Return how many clients may train together.

    Args:
        model: On the CPU; left as it is.
        form: Of the data.
        batch_size: Examples of a step.
        free: Bytes of memory.
    """
    state = sum(value.nbytes for value in model.state_dict().values())
    each = STATES * state + 2 * kept(model, form, batch_size)
    return max(1, min(MOST, int(SHARE * free / each)))


def kept(model: nn.Module, form: Form, batch_size: int) -> int:
    """Return how many bytes a step keeps of its forward pass for the backward one."""
    working, sizes = copied(model).train(), dict[int, int]()
    weights = {value.untyped_storage().data_ptr() for value in working.state_dict().values()}

    def note(value: torch.Tensor) -> torch.Tensor:
        memory = value.untyped_storage()
        if memory.data_ptr() not in weights:
            sizes[memory.data_ptr()] = memory.nbytes()
        return value

    with saved_tensors_hooks(note, lambda value: value):
        step(working, *batch(form, batch_size))
    return sum(sizes.values())
