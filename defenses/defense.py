"""A defense: a record of pure functions from an update to the update that is uploaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from fedsim.params import add, mismatch, not_finite, subtract
from fedsim.types import Params, Upload

State = dict[str, Tensor]
Apply = Callable[[Params, State, Generator], tuple[dict[str, Tensor], State]]
Gradient = Callable[[nn.Module, Params, Tensor, Tensor, Generator], Sequence[Tensor]]


def _no_state(params: Params) -> State:  # noqa: ARG001
    return {}


@dataclass(frozen=True)
class Defense:
    """What a client does to its update before upload.

    Attributes:
        name: As in the config.
        apply: (update, state, generator) → (defended update, new state); pure.
        init: Parameters → the state before the first round.
        gradient: Replaces the batch gradient, for a defense inside training; None for most.
    """

    name: str
    apply: Apply
    init: Callable[[Params], State] = _no_state
    gradient: Gradient | None = None


def chain(*defenses: Defense) -> Defense:
    """Compose defenses; the first one sees the update first.

    Each keeps its own state, under its place in the chain.

    Raises:
        ValueError: More than one of them replaces the batch gradient.
    """
    hooks = [defense for defense in defenses if defense.gradient is not None]
    if len(hooks) > 1:
        names = " and ".join(defense.name for defense in hooks)
        raise ValueError(f"chain: at most one defense may replace the gradient, got {names}")

    def init(params: Params) -> State:
        return {
            f"{place}.{name}": value
            for place, defense in enumerate(defenses)
            for name, value in defense.init(params).items()
        }

    def apply(
        params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        after: State = {}
        for place, defense in enumerate(defenses):
            prefix = f"{place}."
            own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            params, own = defense.apply(params, own, generator)
            after |= {prefix + name: value for name, value in own.items()}
        return dict(params), after

    return Defense(
        name=" → ".join(defense.name for defense in defenses) or "none",
        apply=apply,
        init=init,
        gradient=hooks[0].gradient if hooks else None,
    )


def defend(
    defense: Defense,
    trained: Params,
    sent: Params,
    names: Sequence[str],
    state: State,
    *,
    generator: Generator,
    upload: Upload,
) -> tuple[dict[str, Tensor], State]:
    """Return what a client uploads in place of `trained`, and its defense's new state.

    Only the trainable parameters `names` are defended; buffers travel as they are.

    Raises:
        ValueError: The defended update has other names or shapes, or is not finite: the client
            then uploads an error and never the undefended update.
    """
    theirs = {name: trained[name] for name in names}
    origin = {name: sent[name] for name in names}
    update = subtract(theirs, origin) if upload == "weights" else theirs
    defended, after = defense.apply(update, state or defense.init(update), generator)
    if reason := mismatch(defended, update) or not_finite(defended):
        raise ValueError(f"defense {defense.name}: {reason}")
    if upload == "weights":
        # theirs' dtype, so that weights sent in float64 do not widen the upload
        defended = add(defended, {name: origin[name].to(defended[name].dtype) for name in names})
    return {**trained, **defended}, after
