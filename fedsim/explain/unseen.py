"""What of a client's upload the Jacobian of an architecture does not show."""

from collections.abc import Iterator

from torch import Tensor, nn

from adversary.inversion.chain import drops_out
from adversary.inversion.precision import gradients
from adversary.inversion.products import agree
from fedsim import models
from fedsim.core.doubled import doubled
from fedsim.core.form import Form

NAMES = 3  # that are listed


def unseen(model: nn.Module, at: Tensor, num_classes: int) -> Iterator[str]:
    """Return what J in evaluation mode leaves out, a part of a sentence each.

    Args:
        model: Left as it is.
        at: An input, shape (*shape).
        num_classes: Number of labels.
    """
    form = Form(tuple(at.shape), num_classes)
    moved = models.moved_state(model, form)
    if moved:
        more = f" and {len(moved) - NAMES} more" if len(moved) > NAMES else ""
        names = ", ".join(moved[:NAMES]) + more
        yield f"{names}: state that training moves and that is uploaded"
    if mixing := models.mixing_layer(model, form):
        yield f"{mixing}, which mixes the examples of a batch"
    if differs_in_training(model, at):
        yield "the gradient in training mode, which is another one than in evaluation mode"


def differs_in_training(model: nn.Module, at: Tensor) -> bool:
    """Return whether the gradient does, with dropout and statistics of batches left out.

    Args:
        model: Left as it is.
        at: An input, shape (*shape).
    """
    working = doubled(model).train()
    for module in working.modules():
        if drops_out(module) or isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    trained = gradients(working, at.double(), 0)
    still = gradients(working.eval(), at.double(), 0)
    return not agree(list(trained.values()), list(still.values()))
