"""Frozen layers: named tensors are never updated."""

from collections.abc import Iterable, Sequence

import torch
from torch import Generator, Tensor, nn

from defenses.defense import Defense, State, same_bound
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.errors import nearest
from fedsim.core.types import LocalTraining, Params
from fedsim.models import trainable


def freeze(*, layers: Sequence[str] = ()) -> Defense:
    """Zero the update of the named tensors, so that nothing leaks through them.

    The classical case is the head, whose gradient tells a batch's labels (Zhao, Mopuri, Bilen,
    "iDLG: Improved Deep Leakage from Gradients", 2020, section 3). Other tensors still may: this
    promises no privacy. The client trains the named tensors and then drops what they learned.

    Args:
        layers: Names of tensors, or of what stands before a dot: "0" is "0.weight" and "0.bias".

    Raises:
        ValueError: Before round 1 and on an update, no layer is named or one is missing.
    """

    def check(model: nn.Module, local: LocalTraining, sizes: Sequence[int]) -> None:  # noqa: ARG001
        if not layers:
            raise ValueError("layers: must name at least one, got none")
        _frozen(layers, trainable(model))

    def apply(
        params: Params,
        state: State,
        generator: Generator,  # noqa: ARG001
    ) -> tuple[dict[str, Tensor], State]:
        if not layers:
            raise ValueError("layers: must name at least one, got none")
        frozen = _frozen(layers, params)
        return {
            name: torch.zeros_like(value) if name in frozen else value
            for name, value in params.items()
        }, state

    promise = Promise(statement="nothing leaks through the frozen layers; the others are exact")
    return Defense(name="freeze", apply=apply, check=check, promise=promise, bound=same_bound)


def _frozen(layers: Sequence[str], names: Iterable[str]) -> set[str]:
    """Return the names that belong to `layers`.

    Raises:
        ValueError: To one of them belongs none.
    """
    frozen = set()
    names = list(names)
    for layer in layers:
        tensors = {name for name in names if name == layer or name.startswith(f"{layer}.")}
        if not tensors:
            depth = layer.count(".") + 1
            alike = {".".join(name.split(".")[:depth]) for name in names}
            hint = nearest(layer, alike)
            raise ValueError(f"layers: must be in the model, got '{layer}'; {hint}")
        frozen |= tensors
    return frozen


DEFENSE = Entry("freeze", freeze, paper="Zhao, Mopuri, Bilen, 2020")
