"""All properties on one attack, and what became of each."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adversary.attack import Attack
from adversary.grading.selection import build
from fedsim.config import Part
from fedsim.conformance import board
from fedsim.conformance.properties import PICTURE, PROPERTIES, WITHOUT_BOARD, Property
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import ConfigError, ContractBroken, plain


@dataclass(frozen=True)
class Outcome:
    """What became of one property.

    Attributes:
        name: Of the property.
        state: Whether it holds; `skipped` where it is not about the attack.
        reason: Why it does not hold; empty where it does.
    """

    name: str
    state: Literal["pass", "fail", "skipped"]
    reason: str = ""


def attack_of(name: str, options: Mapping[str, Any]) -> Attack:
    """Return an attack by name, built-in or `package.module:attack`.

    Raises:
        ConfigError: There is none, it is no attack, or an option is wrong.
    """
    part = Part(name=name, **options)
    for auxiliary in (board.AUXILIARY, board.KNOWS):
        attack = build([part], auxiliary)[0]
        if (attack.family == PICTURE) == (auxiliary is board.KNOWS):
            break
    if attack.family in WITHOUT_BOARD:
        raise ConfigError(
            f"{name}: must be of a family that the suite has clients for, got {attack.family}"
        )
    return attack


def conform(
    attack: Attack, on_outcome: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Run every property on an attack.

    Args:
        attack: Its `infer` is called as a run calls it, but for the number of its steps.
        on_outcome: Called after each property.
    """
    outcomes = []
    for each in PROPERTIES:
        outcomes.append(_tried(each, attack))
        on_outcome(outcomes[-1])
    return outcomes


def check_all(name: str, outcomes: Iterable[Outcome]) -> None:
    """Refuse an attack that breaks a property.

    Raises:
        ContractBroken: It does.
    """
    broken = [outcome.name for outcome in outcomes if outcome.state == "fail"]
    if broken:
        raise ContractBroken(
            f"{name}: must keep every property, got {len(broken)} broken: {'; '.join(broken)}"
        )


def _tried(of: Property, attack: Attack) -> Outcome:
    if not of.applies(attack):
        return Outcome(of.name, "skipped", f"not about {attack.family}")
    try:
        reason = of.check(attack)
    except PASSING:
        raise
    except BaseException as error:  # foreign code may raise anything
        return Outcome(of.name, "fail", plain(f"raised {explained(error)}"))
    return Outcome(of.name, "pass") if reason is None else Outcome(of.name, "fail", plain(reason))
