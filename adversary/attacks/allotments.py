"""What a budget leaves to each reconstruction that fits: for how many steps or iterations.

In: a model and a protocol (`Setting`) and the options of `auto-reconstruct`. Out: the attacks that
will be tried, in order, and why others are not begun.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adversary.attacks.reconstruction_rules import RULES, Rule
from adversary.inversion.assignments import STARTS
from adversary.inversion.budgets import TERA, least, within
from adversary.inversion.setting import Setting, setting_of
from fedsim.core.catalog import options_of
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, LocalTraining


@dataclass(frozen=True)
class Allotted:
    """What a budget leaves to an attack.

    Attributes:
        rule: Of the attack.
        options: With which it keeps to its part; None where that is not enough to begin.
        reason: Why it is not begun; empty where it is.
    """

    rule: Rule
    options: Mapping[str, int] | None
    reason: str = ""


def planned(
    auxiliary: Auxiliary,
    local: LocalTraining,
    count: int,
    *,
    budget: float = 1.0,
    iterations: int = 3000,
    steps: int = 40,
) -> str:
    """Return which attacks will be tried and why, or why none can be, in a sentence.

    Args:
        auxiliary: The architecture.
        local: How clients train.
        count: Examples of an update.
        budget: As for `auto_reconstruct`.
        iterations: The same.
        steps: The same.
    """
    try:
        setting = setting_of(auxiliary, local, count)
        parts = allotted(fitting(setting), setting, budget, iterations, steps)
    except NotApplicable as reason:
        return f"will refuse every update: {reason}"
    begun = [it for it in parts if it.options is not None]
    left_out = "; ".join(f"{it.rule.name}: {it.reason}" for it in parts if it.options is None)
    if not begun:
        return f"will refuse every update: auto-reconstruct: an attack must answer, got {left_out}"
    names = ", then ".join(_described(it, setting) for it in begun)
    until = ", until one explains the upload" if len(begun) > 1 else ""
    return f"tries {names}{until}" + (f"; not {left_out}" if left_out else "")


def _described(part: Allotted, setting: Setting) -> str:
    """Return an attack's name, why it fits, and how long it works."""
    amounts = [f"{value} {name}" for name, value in (part.options or {}).items()]
    why = "; ".join([part.rule.applies(setting) or "", *amounts])
    return f"{part.rule.name} ({why})"


def fitting(setting: Setting) -> list[Rule]:
    """Return the rules that apply.

    Raises:
        NotApplicable: None does.
    """
    rules = [rule for rule in RULES if rule.applies(setting) is not None]
    if not rules:
        raise NotApplicable(f"auto-reconstruct: an attack must fit, got none: {setting.flat}")
    return rules


def allotted(
    rules: Sequence[Rule], setting: Setting, budget: float, iterations: int, steps: int
) -> list[Allotted]:
    """Return what a budget leaves to each attack: half of what is left, to the last one all."""
    left, parts = budget * TERA, list[Allotted]()
    for rule in rules:
        share = left if rule is rules[-1] else left / 2
        option, unit = rule.work(setting)
        wanted = min(iterations if option == "iterations" else steps, _default(rule, option))
        amount = within(option, wanted, unit, share) if option else int(unit <= share)
        if not amount:
            needed = unit * (least(option, wanted) if option else 1)
            parts.append(Allotted(rule, None, _beyond(needed, share)))
            continue
        options, spent = ({option: amount} if option else {}), amount * unit
        if rule.starts:
            options["starts"] = min(STARTS, max(1, int(share // max(spent, 1.0))))
            spent *= options["starts"]
        left -= spent
        parts.append(Allotted(rule, options))
    return parts


def _default(rule: Rule, option: str) -> int:
    return options_of(rule.infer)[option].default if option else 1


def _beyond(needed: float, share: float) -> str:
    return (
        f"budget: must leave {needed / TERA:.2g} · 10¹² operations for this attack, got "
        f"{share / TERA:.2g}"
    )
