"""Where an adversary computes: its view and its knowledge, moved to where it runs the model.

An attack that says so (`Attack.on_device`) computes there as a whole (`answer`). Of the others only
what they ask of the model does (`at_model`), and is brought back to the CPU. Each thing is moved
once for all attacks of a round, in the views' memory. Without an accelerator nothing is moved.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import torch
from torch import Generator

from adversary.attack import Attack
from adversary.workspace import Workspace, workspace_of
from fedsim.core.devices import CPU, here, moved, on, with_doubles
from fedsim.core.memory import Memory
from fedsim.core.types import Auxiliary, Observation, Params, View

MODELS = 32  # sent ones of a round that stay on the device
OBSERVATIONS = 64

Item = TypeVar("Item")
Options = ParamSpec("Options")
Result = TypeVar("Result")


def device_of(attack: Attack, auxiliary: Auxiliary) -> torch.device:
    """Return where an attack computes: it may take float64, which not every device has."""
    return with_doubles(auxiliary.device) if attack.on_device else CPU


def answer(attack: Attack, view: View, auxiliary: Auxiliary, generator: Generator) -> Any:
    """Return what an attack answers, on the CPU."""
    device = device_of(attack, auxiliary)
    if device.type == "cpu":
        return attack.infer(view, auxiliary, generator)
    one = partial(_observation, memory=view.memory, device=device)
    cohorts = _Placed(view.cohorts, partial(_cohort, one=one, memory=view.memory))
    placed = View(
        _Placed(view.observations, one), cohorts if view.cohorts else (), view.memory, view.names
    )
    with on(device):
        knows = _auxiliary(auxiliary, view.memory, device)
        return moved(attack.infer(placed, knows, generator), CPU)


def at_model(
    compute: Callable[Concatenate[Workspace, Options], Result],
) -> Callable[Concatenate[Workspace, Options], Result]:
    """Let a function of a workspace compute where the adversary runs the model.

    What it returns is brought back to the CPU, if its caller computes there.
    """

    @wraps(compute)
    def computed(work: Workspace, *values: Options.args, **options: Options.kwargs) -> Result:
        device = work.auxiliary.device
        if device.type == "cpu" or here().type != "cpu":
            return compute(work, *values, **options)
        with on(device):
            placed = workspace_of(
                _auxiliary(work.auxiliary, work.memory, device),
                _params(work.sent, work.memory, device),
                work.local,
                work.memory,
            )
            anywhere: Callable[..., Result] = compute
            return moved(anywhere(placed, *moved(values, device), **moved(options, device)), CPU)

    return computed


class _Placed(Sequence[Item], Generic[Item]):
    """Things that are moved when they are asked for."""

    def __init__(self, given: Sequence[Item], place: Callable[[Item], Item]) -> None:
        self._given, self._place = given, place

    def __bool__(self) -> bool:
        return bool(self._given)

    def __len__(self) -> int:
        return len(self._given)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return _Placed(self._given[index], self._place)
        return self._place(self._given[index])


def _cohort(
    given: Sequence[Observation],
    *,
    one: Callable[[Observation], Observation],
    memory: Memory,
) -> Sequence[Observation]:
    # What is kept holds the original, so that no other takes its id.
    return memory.get(_cohort, id(given), lambda: (_Placed(given, one), given), keep=MODELS)[0]


def _observation(given: Observation, *, memory: Memory, device: torch.device) -> Observation:
    def placed() -> Observation:
        sent = _params(given.sent, memory, device)
        return Observation(sent, moved(given.update, device), given.local)

    return memory.get(_observation, given, placed, keep=OBSERVATIONS)


def _params(given: Params, memory: Memory, device: torch.device) -> Params:
    return memory.get(_params, id(given), lambda: (moved(given, device), given), keep=MODELS)[0]


def _auxiliary(given: Auxiliary, memory: Memory, device: torch.device) -> Auxiliary:
    return memory.run.get(_auxiliary, given, lambda: moved(given, device))
