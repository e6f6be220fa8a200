"""What gradient matching matches: an upload, the model it was made from, and the protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.costs import Cost, of_descent
from adversary.inversion.batch_norms import statistics_of
from adversary.inversion.local_steps import flat
from adversary.inversion.reading import batch_size
from adversary.inversion.rows import Rows, Statistics
from adversary.inversion.seams import Seams
from adversary.labels.head import input_shape
from adversary.members.candidates import trained_names
from adversary.steps import mean_weight, num_steps
from fedsim.core.errors import NotApplicable
from fedsim.core.params import not_finite
from fedsim.core.types import Auxiliary, LocalTraining, Observation

Change = Callable[[Float[Tensor, "rows entries"]], Float[Tensor, "rows entries"]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """What is matched.

    Attributes:
        model: At the weights sent.
        local: The protocol.
        unit: What an upload is divided by, to be of the size of one gradient.
        observed: The upload in that unit, of all rows or of each, shape (1 or rows, entries).
        shape: Of a guess, (batch, *shape of one).
        classes: Number of labels.
        change: What is done to the simulated upload before it is compared; None for nothing.
        keep: 1 for entries that are compared, 0 for others, shape (entries,); None for all.
        statistics: What is known of the inputs of batch norms over the batch; None for nothing.
        marked: Entries whose cosine counts by itself; None for none.
        seams: Where patches meet; None where there are none.
    """

    model: Rows
    local: LocalTraining
    unit: float
    observed: Float[Tensor, "rows entries"]
    shape: tuple[int, ...]
    classes: int
    change: Change | None = None
    keep: Float[Tensor, " entries"] | None = None
    statistics: Statistics | None = None
    marked: slice | None = None
    seams: Seams | None = None


def problem_of(observation: Observation, auxiliary: Auxiliary) -> Problem:
    """Return what is matched of an observation.

    Raises:
        ValueError: The client told no number of examples, the update is a sum over clients, not
            finite, or lacks a parameter.
    """
    count, names = batch_size(observation), trained_names(auxiliary)
    delta, local = observation.update.delta, observation.local
    if missing := [name for name in names if name not in delta]:
        raise NotApplicable(f"{missing[0]}: must be in the update")
    if reason := not_finite({name: delta[name] for name in names}):
        raise ValueError(f"update: {reason}")
    model = Rows(auxiliary.model, observation.sent, names)
    unit = 1.0
    if local.upload == "weights":
        steps = num_steps(observation)
        unit = -local.lr * mean_weight(local, steps) * steps
    observed = flat([delta[name].to(model.dtype).unsqueeze(0) for name in names]) / unit
    if not bool(observed.any()):
        raise ValueError("update: must not be zero")
    shape, classes = (count, *input_shape(auxiliary)), auxiliary.num_classes
    whole = local.upload == "gradient" or count <= local.batch_size  # else it is of several batches
    return Problem(
        model=model,
        local=local,
        unit=unit,
        observed=observed,
        shape=shape,
        classes=classes,
        statistics=statistics_of(auxiliary.model, observation) if whole else None,
    )


def cost_of_matching(auxiliary: Auxiliary, count: int, options: Mapping[str, Any]) -> Cost | None:
    """Return what gradient matching costs, of as many `restarts` as are computed at a time.

    On an accelerator they are as many as fit, so that one has to.

    Raises:
        ValueError: The shape of an input is not known.
    """
    rows = int(options.get("restarts", 1)) if auxiliary.device.type == "cpu" else 1
    shape = input_shape(auxiliary)
    return of_descent(auxiliary.model, shape, count, rows=rows, dtype=torch.float32)
