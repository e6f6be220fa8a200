"""What uploads say of where the head is: under softmax and cross-entropy its rows add up to 0.

For a label y, probabilities p and features h, one label's share of the head's gradient is
(p − e_y)·[hᵀ, 1], and p − e_y adds up to 0 over the classes. So do sums of it: steps of SGD, means
over clients. Noise, sparse uploads and optimizers such as Adam destroy it; then nothing is said.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.errors import ConfigError
from fedsim.core.types import Observation

ZERO, OFF = 0.01, 0.3  # of the norm: a sum that is 0 but for rounding, and one that is not
VIEWS = 3  # so many clients bear it out

SOFTMAX = Rule(
    "head of a model",
    "--head-weight or --arrays",
    "must give as the head the layer whose update adds up to 0 over the classes",
    "refused where another layer's does; else attacked",
)
TIED = Rule(
    "head of a model",
    "--head-weight",
    "must be a layer's own, because a tied weight's update holds another layer's gradient",
)
CHECKS = (SOFTMAX, TIED)


def check_head(
    latest: Sequence[Observation], weight: str, classes_axis: int, *, option: str
) -> None:
    """Refuse a head against which all uploads speak.

    Args:
        latest: The last round's of a few clients, by the names on tape.
        weight: Name on tape of the head's weight.
        classes_axis: Which of its axes are the classes.
        option: The option that says which array it is.

    Raises:
        ConfigError: It is tied; or it does not add up to 0 over the classes, and another does.
    """
    names = latest[0].update.delta.keys() if latest else set()
    moved = [
        it
        for it in latest
        if it.update.delta.keys() == names and it.update.delta[weight].abs().sum() > 0
    ]
    if not moved:
        return
    if other := _twin(moved, weight):
        raise ConfigError(f"{option}: {TIED.rule}, got '{weight}', which is equal to '{other}'")
    if min(_imbalance(it.update.delta[weight], classes_axis) for it in moved) < OFF:
        return
    if other := _better(moved, weight, classes_axis):
        raise ConfigError(f"{option}: {SOFTMAX.rule}, got '{weight}', which does not; {other}")


def _twin(latest: Sequence[Observation], weight: str) -> str:
    """Return an array that is sent and comes back as the weight does; "" without."""
    for name, value in latest[0].sent.items():
        if name == weight or value.shape != latest[0].sent[weight].shape:
            continue
        if all(
            _equal(it.sent, name, weight) and _equal(it.update.delta, name, weight) for it in latest
        ):
            return name
    return ""


def _better(latest: Sequence[Observation], weight: str, classes_axis: int) -> str:
    """Return which array adds up to 0 over an axis, with its bias; "" where none or several do."""
    places = []
    for name, value in latest[0].update.delta.items():
        for axis in range(2) if value.ndim == 2 else ():
            if (name, axis) == (weight, classes_axis) or not _balanced(latest, name, axis):
                continue
            # A layer after a normalisation adds up to 0 over its inputs, and has no such bias.
            if name == weight or any(
                _balanced(latest, bias, 0)
                for bias, other in latest[0].update.delta.items()
                if tuple(other.shape) == (value.shape[axis],)
            ):
                places.append(f"'{name}' does, over its {('rows', 'columns')[axis]}")
    return places[0] if len(places) == 1 else ""


def _balanced(latest: Sequence[Observation], name: str, axis: int) -> bool:
    values = [it.update.delta[name] for it in latest]
    return all(_imbalance(value, axis) < ZERO for value in values)


def _imbalance(value: Tensor, axis: int) -> float:
    """Return the norm of the sum over an axis, as a share of the array's own; 1 where it is 0."""
    size = float(value.double().norm())
    return float(value.sum(dim=axis, dtype=torch.float64).norm()) / size if size > 0 else 1.0


def _equal(arrays: Mapping[str, Tensor], name: str, other: str) -> bool:
    return torch.equal(arrays[name], arrays[other])
