"""A defense: a record of pure functions from an update to the update that is uploaded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Generator, Tensor, nn

from defenses.promise import HEURISTIC, Promise
from fedsim.core.form import KINDS, Kind
from fedsim.core.params import add, mismatch, not_finite, subtract
from fedsim.core.types import LocalTraining, Params, Upload

State = dict[str, Tensor]
Apply = Callable[[Params, State, Generator], tuple[dict[str, Tensor], State]]
Gradient = Callable[[nn.Module, Params, Tensor, Tensor, LocalTraining, Generator], Sequence[Tensor]]
"""(model, its trainable parameters, inputs, labels, protocol, generator) → a gradient for each."""
Batches = Callable[[int, LocalTraining, Generator], list[Tensor]]
"""(number of examples, protocol, generator) → the positions of each local step's examples."""
Check = Callable[[nn.Module, LocalTraining, Sequence[int]], None]
"""(model, protocol, examples per client) → nothing, or a ValueError in one sentence."""
Spend = Callable[[State, LocalTraining, int], State]
"""(state, protocol, number of examples) → state after one more round, or a ValueError."""


@dataclass(frozen=True, eq=False)
class Marked:
    """Records of which the defender knows the secret; no adversary has them.

    Attributes:
        inputs: Shape (n, *shape).
        labels: Shape (n,).
        marks: The secret of each, 0 to K − 1, shape (n,).
    """

    inputs: Tensor
    labels: Tensor
    marks: Tensor


def unchanged(
    update: Params,
    state: State,
    generator: Generator,  # noqa: ARG001
) -> tuple[dict[str, Tensor], State]:
    """Leave the update as it is: for a defense that works inside training."""
    return dict(update), state


def no_state(params: Params) -> State:  # noqa: ARG001
    """Return the state of a defense without memory."""
    return {}


def no_bound(bound: float) -> float:  # noqa: ARG001
    """Return the largest norm after a defense that bounds none."""
    return math.inf


def same_bound(bound: float) -> float:
    """Return the largest norm after a defense that makes no update longer."""
    return bound


def accepts(model: nn.Module, local: LocalTraining, sizes: Sequence[int]) -> None:
    """Accept every model, protocol and client."""


def spends_nothing(state: State, local: LocalTraining, num_examples: int) -> State:  # noqa: ARG001
    """Return the state of a defense without a budget, as it is."""
    return state


@dataclass(frozen=True, kw_only=True)
class Defense:
    """What a client does to its update before upload, or while it trains.

    Attributes:
        name: As in the config.
        apply: (update, state, generator) → (defended update, new state); pure.
        init: Parameters → the state before the first round.
        gradient: Replaces the batch gradient, for a defense inside training; None for most.
        batches: Replaces the shuffled batches of every epoch; None for most.
        check: Refuses, before round 1, a setting in which the defense is not what it says.
        spend: Called before a client trains: counts the round, or refuses it, because a budget is
            spent; the client then uploads an error.
        apart: Whether it takes the gradient of every example by itself, so that the model must not
            mix them (`defenses.fit`).
        promise: What it guarantees by itself.
        bound: Largest Euclidean norm of an update before → after it.
        against: Marked records → the same defense of that secret; None for one that does not look
            at secrets.
        noise: Standard deviation of Gaussian noise that it adds to every entry; 0 without.
        delta: δ at which an ε that follows from `noise` is stated.
        kinds: The kinds of models it works on.
    """

    name: str
    apply: Apply = unchanged
    init: Callable[[Params], State] = no_state
    gradient: Gradient | None = None
    batches: Batches | None = None
    check: Check = accepts
    spend: Spend = spends_nothing
    apart: bool = False
    promise: Promise = HEURISTIC
    bound: Callable[[float], float] = no_bound
    against: "Callable[[Marked], Defense] | None" = None
    noise: float = 0.0
    delta: float = 1e-5
    kinds: tuple[Kind, ...] = tuple(KINDS)


class Defended(NamedTuple):
    """What came out of a client's defenses.

    Attributes:
        upload: In place of the trained state.
        state: What the defenses remember.
        update: The defended update itself, of the trainable parameters.
    """

    upload: dict[str, Tensor]
    state: State
    update: dict[str, Tensor]


def defend(
    defense: Defense,
    trained: Params,
    sent: Params,
    names: Sequence[str],
    state: State,
    *,
    generator: Generator,
    upload: Upload,
) -> Defended:
    """Return what a client uploads in place of `trained`, and its defense's new state.

    Only trainable parameters are defended; buffers travel as they are.

    Args:
        defense: The client's.
        trained: Its model after training, or, with `upload="gradient"`, the gradient.
        sent: The weights that it was sent.
        names: The trainable parameters.
        state: What the defense remembers; empty before its first round.
        generator: Draws its noise.
        upload: What clients upload.

    Raises:
        ValueError: The update is not finite, or the defended one has other names, shapes or
            dtypes or is not finite: the client then uploads an error and never the undefended
            update.
    """
    moving = {name: trained[name].clone() for name in names}  # a defense may write into it
    origin = {name: sent[name] for name in names}
    update = subtract(moving, origin) if upload == "weights" else moving
    if reason := not_finite(update):
        raise ValueError(f"update: {reason}")
    defended, after = defense.apply(update, state or defense.init(update), generator)
    if reason := mismatch(defended, update) or not_finite(defended):
        raise ValueError(f"defense {defense.name}: {reason}")
    moved = defended
    if upload == "weights":
        # trained dtype, so that weights sent in float64 do not widen the upload
        moved = add(defended, {name: origin[name].to(defended[name].dtype) for name in names})
    return Defended({**trained, **moved}, after, dict(defended))
