"""Where an adversary works: what it computes once of a model sent, for all clients of a round.

An attack asks for its workspace (`workspace`), and the workspace for parts: plain functions of it,
computed once. Nothing that a part is made of may be changed afterwards.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar, TypeVarTuple

import torch
from torch import Generator, Tensor, nn

from fedsim.core.memory import Memory
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params, View

Part = TypeVar("Part")
Values = TypeVarTuple("Values")
WORKSPACES = 512  # of a round, at most: rounds that are looked back at, and kinds of auxiliary data


def workspace(view: View, auxiliary: Auxiliary) -> "Workspace":
    """Return the workspace for the latest observation of a view; the same one for views that share.

    Args:
        view: One client's observations, with the memory of its round.
        auxiliary: What the adversary knew before round 1; the object itself counts.
    """
    return workspace_of(auxiliary, view.latest.sent, view.latest.local, view.memory)


@dataclass(frozen=True, eq=False)
class Workspace:
    """What one adversary computes of one model sent.

    Attributes:
        auxiliary: What the adversary knew before round 1.
        sent: The global weights.
        local: The protocol.
        memory: Of the round; holds the parts.
    """

    auxiliary: Auxiliary
    sent: Params
    local: LocalTraining
    memory: Memory

    def part(
        self, make: Callable[["Workspace", *Values], Part], *values: *Values, keep: int = 32
    ) -> Part:
        """Return `make(self, *values)`, computed once.

        Args:
            make: What computes it.
            values: Compared by value.
            keep: How many results of `make` the round keeps.
        """
        return self.memory.get(make, (self, *values), lambda: make(self, *values), keep=keep)

    def lasting(self, make: Callable[[Auxiliary], Part]) -> Part:
        """Return `make(self.auxiliary)`, computed once for all rounds."""
        auxiliary = self.auxiliary
        return self.memory.run.get(make, auxiliary, lambda: make(auxiliary))

    def derived(self, derive: Callable[[Auxiliary], Auxiliary]) -> "Workspace":
        """Return the workspace of an adversary that knows something else: `derive` says what."""
        return self.knowing(self.lasting(derive))

    def knowing(self, auxiliary: Auxiliary) -> "Workspace":
        """Return the workspace with another auxiliary."""
        return workspace_of(auxiliary, self.sent, self.local, self.memory)

    def at(self, observation: Observation) -> "Workspace":
        """Return the workspace for another observation."""
        return workspace_of(self.auxiliary, observation.sent, observation.local, self.memory)


def undefended(auxiliary: Auxiliary) -> Auxiliary:
    """Return what the adversary knows who does not know of the defense."""
    return auxiliary if auxiliary.defense is None else replace(auxiliary, defense=None)


def working_copy(auxiliary: Auxiliary) -> nn.Module:
    """Return a copy of the model to work with, in training mode."""
    return copy.deepcopy(auxiliary.model).train()


def loaded(model: nn.Module, state: Params) -> nn.Module:
    """Put a model in `state`, and return it."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(state[name])
    return model


def randomise(model: nn.Module, stream: Generator) -> None:
    """Draw all weights anew, as layers are initialised: nothing saturates, no two outputs agree."""
    with torch.no_grad():
        for parameter in model.parameters():
            size = max(1, parameter[:1].numel()) if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=stream) / size**0.5)


def as_inputs(inputs: Tensor, model: nn.Module) -> Tensor:
    """Return inputs in the model's precision; whole numbers, such as token ids, as they are."""
    dtype = next(model.parameters()).dtype
    return inputs.to(dtype) if inputs.is_floating_point() else inputs


@contextmanager
def evaluating(work: Workspace, state: Params) -> Iterator[nn.Module]:
    """Lend the working copy in `state`, as it is evaluated; it trains again afterwards."""
    model = loaded(work.lasting(working_copy), state).eval()
    try:
        yield model
    finally:
        model.train()


def workspace_of(
    auxiliary: Auxiliary, sent: Params, local: LocalTraining, memory: Memory
) -> Workspace:
    """Return the workspace of one adversary, model sent and protocol; the same one each time."""
    # The workspace holds the weights, so that no others take their id.
    return memory.get(
        Workspace,
        (auxiliary, id(sent), local),
        lambda: Workspace(auxiliary, sent, local, memory),
        keep=WORKSPACES,
    )
