"""Several defenses in a row, as one defense."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from defenses.defense import Defense, Marked, State, spends_nothing
from defenses.promise import Promise, gaussian_mechanism
from fedsim.core.form import KINDS
from fedsim.core.types import LocalTraining, Params


def chain(*defenses: Defense) -> Defense:
    """Compose defenses; the first one sees the update first.

    Each keeps its own state, under its place in the chain. Gaussian noise after a bound on the
    norm is the Gaussian mechanism, whatever comes before the bound or after the noise: the chain
    then promises what none of its links does.

    Raises:
        ValueError: More than one of them replaces the batch gradient.
    """
    hooks = [defense for defense in defenses if defense.gradient is not None]
    if len(hooks) > 1:
        names = " and ".join(defense.name for defense in hooks)
        raise ValueError(f"chain: at most one defense may replace the gradient, got {names}")
    links = _Links(defenses)
    looks = any(defense.against is not None for defense in defenses)
    counts = any(defense.spend is not spends_nothing for defense in defenses)
    return Defense(
        name=" → ".join(defense.name for defense in defenses) or "none",
        apply=links.apply,
        init=links.init,
        gradient=hooks[0].gradient if hooks else None,
        batches=hooks[0].batches if hooks else None,
        check=links.check,
        apart=any(defense.apart for defense in defenses),
        kinds=tuple(kind for kind in KINDS if all(kind in it.kinds for it in defenses)),
        against=links.against if looks else None,
        spend=links.spend if counts else spends_nothing,
        promise=_promise(defenses),
    )


@dataclass(frozen=True)
class _Links:
    """The functions of a chain."""

    defenses: Sequence[Defense]

    def against(self, marked: Marked) -> Defense:
        return chain(*(it.against(marked) if it.against else it for it in self.defenses))

    def init(self, params: Params) -> State:
        return _joined([defense.init(params) for defense in self.defenses])

    def apply(
        self, params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        states: list[State] = []
        for place, defense in enumerate(self.defenses):
            params, after = defense.apply(params, _state_of(state, place), generator)
            states.append(after)
        return dict(params), _joined(states)

    def check(self, model: nn.Module, local: LocalTraining, sizes: Sequence[int]) -> None:
        for defense in self.defenses:
            defense.check(model, local, sizes)

    def spend(self, state: State, local: LocalTraining, num_examples: int) -> State:
        return _joined(
            [
                defense.spend(_state_of(state, place), local, num_examples)
                for place, defense in enumerate(self.defenses)
            ]
        )


def _joined(states: Sequence[State]) -> State:
    """Return what all links remember, each under its place."""
    return {
        f"{place}.{name}": value
        for place, state in enumerate(states)
        for name, value in state.items()
    }


def _state_of(state: State, place: int) -> State:
    """Return what the link at a place of the chain remembers."""
    prefix = f"{place}."
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def _promise(defenses: Sequence[Defense]) -> Promise:
    """Return the formal promise of a chain: that of a link, or of noise on a bounded update."""
    bound = math.inf
    for defense in defenses:
        if defense.promise.formal:
            return defense.promise
        if defense.noise and math.isfinite(bound):
            return gaussian_mechanism(bound, defense.noise, defense.delta)
        bound = defense.bound(bound)
    if not defenses:
        return Promise(statement="no defense")
    statements = [defense.promise.statement for defense in defenses]
    return Promise(statement="; ".join(dict.fromkeys(statements)))
