"""Which models let several clients train together: found by trials on copies of them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsim.core.boundary import PASSING, raised
from fedsim.core.form import Form
from fedsim.core.params import norm, subtract
from fedsim.core.rng import generator
from fedsim.core.sgd import mean_gradient
from fedsim.core.types import LocalTraining
from fedsim.models.copying import copied
from fedsim.models.together import OneByOne, train_together
from fedsim.models.trial import batch, draws, mixing_layer, moved_state, parameters_of, remembers

DTYPES = (torch.float32, torch.float64)
TOLERANCE = 1e-4  # of a trial's gradient; one of another model or loss is off by far more
MOST = 512  # examples of a batch of a trial
DRAWS = "the model draws random numbers while it trains"
TRIAL = (4, 3)  # examples of the clients of a first trial: the second is filled up


@dataclass(frozen=True)
class Batching:
    """How clients train together.

    Attributes:
        hindrance: Why they cannot; empty if they can.
        mixes: Whether examples of a batch change each other's logits: only batches of one size go
            together then, because no padding is exact.
    """

    hindrance: str = ""
    mixes: bool = False


def batching(model: nn.Module, form: Form, local: LocalTraining, largest: int) -> Batching:
    """Return how clients of a model train together, by trials on copies of it.

    Args:
        model: Left as it is.
        form: Of the data.
        local: The protocol.
        largest: Examples of the largest batch: a model may treat it as it treats no small one.
    """
    try:
        mixes = mixing_layer(model, form) is not None
        return Batching(_hindrance(model, form, local, largest, mixes=mixes), mixes)
    except PASSING:
        raise
    except BaseException as error:  # foreign code may want to end the process
        return Batching(refusal(error))


def _hindrance(
    model: nn.Module, form: Form, local: LocalTraining, largest: int, *, mixes: bool
) -> str:
    """Return why clients of a model cannot train together; empty if they can."""
    trained = parameters_of(model)
    if odd := [name for name, value in trained.items() if value.dtype not in DTYPES]:
        return f"{odd[0]} is of {trained[odd[0]].dtype}"
    if moved := moved_state(model, form):
        return f"{moved[0]} moves while the model trains"
    if remembers(model, form):
        return "the model remembers earlier batches"
    if draws(model, form):
        return DRAWS
    size = min(largest, MOST)
    for sizes in (TRIAL, *([(size, _fewest(size))] if size > max(TRIAL) else [])):
        apart = _difference(model, form, local, sizes, mixes=mixes)
        if apart > TOLERANCE:
            return f"vmap changes the gradient by {apart:.1e} of it"
    return ""


def _fewest(size: int) -> int:
    """Return the examples of the smallest batch that is filled up to a size."""
    return (1 << (size - 1).bit_length()) // 2 + 1


def _difference(
    model: nn.Module, form: Form, local: LocalTraining, sizes: tuple[int, int], *, mixes: bool
) -> float:
    """Return by how much gradients of two clients differ from those taken one by one.

    The largest norm of a difference, in units of the gradient's; infinite where one is NaN.
    """
    sent, (inputs, labels) = dict(model.state_dict()), batch(form, sum(sizes))
    step = LocalTraining(
        local.lr, max(sizes), upload="gradient", label_smoothing=local.label_smoothing
    )
    parts = torch.arange(sum(sizes)).split(list(sizes))
    together = train_together(
        *(copied(model), [sent] * len(parts), inputs, labels),
        *([[part] for part in parts], step),
        mixes=mixes,
    )
    largest = 0.0
    for part, state in zip(parts, together, strict=True):
        alone = _gradient(copied(model).train(), inputs[part], labels[part], step)
        plain = {name: state[name] for name in alone}
        apart = float(norm(subtract(alone, plain)) / norm(alone))
        largest = max(largest, apart if math.isfinite(apart) else math.inf)
    return largest


def _gradient(
    model: nn.Module, inputs: Tensor, labels: Tensor, local: LocalTraining
) -> dict[str, Tensor]:
    trained, coins = parameters_of(model), generator(0, "trial")
    slopes = mean_gradient(model, trained, inputs, labels, local, coins)
    return dict(zip(trained, slopes, strict=True))


def refusal(error: BaseException) -> str:
    """Return what hinders clients whose joint training raised an error."""
    return (
        str(error) if isinstance(error, OneByOne) else f"the model refuses vmap ({raised(error)})"
    )
