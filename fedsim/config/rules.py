"""The rule language of `fedsim check`: `family[.attack].metric OP limit`, read without evaluation.

label.skill > 0.3                    any attack, any round: the mean over the round's clients
label.llg.skill > blind + 0.1        one attack, against its blind guess
max(membership.auroc) > 0.6          the largest of all attacks and rounds
mean(label.skill) > 0.3              each attack's mean over all rounds
last(test.accuracy) < 0.8            the last round alone
client(label.skill) > 0.9            each client in each round
audit.epsilon_lower > claim          an audited bound, against what the defense claims

A rule states what must not be. It is violated as soon as one of its values satisfies it.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from fedsim.config.values import shown
from fedsim.core.errors import nearest

Over = Literal["any", "max", "mean", "last", "client"]
Operator = Literal[">", ">=", "<", "<="]
Base = Literal["", "blind", "claim"]
FORM = "FAMILY[.ATTACK].METRIC >|>=|<|<= NUMBER|blind|claim"

_TARGET = r"[^\s()<>=]+"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RULE = re.compile(
    rf"\s*(?:(?P<over>[\w-]+)\s*\(\s*(?P<inner>{_TARGET})\s*\)|(?P<target>{_TARGET}))"
    rf"\s*(?P<operator>>=|<=|>|<)\s*"
    rf"(?:(?P<base>[A-Za-z]+)(?:\s*\+\s*(?P<more>{_NUMBER}))?|(?P<number>{_NUMBER}))\s*"
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What must not be.

    Attributes:
        text: As it was written.
        over: Which values are compared; see the module.
        family: `audit`, `game`, `test`, or an attack's family.
        attack: An attack, an audit's method or canary, or a game; None for all of the family.
        metric: As in the table.
        operator: Between value and limit.
        base: What stands beside each value in the table, to which `number` is added; empty for the
            number alone.
        number: The limit, or what is added to it.
    """

    text: str
    over: Over
    family: str
    attack: str | None
    metric: str
    operator: Operator
    base: Base
    number: float

    @property
    def upward(self) -> bool:
        """Whether large values violate the rule."""
        return self.operator in (">", ">=")

    def holds_for(self, value: float, limit: float) -> bool:
        """Return whether a value satisfies the rule's condition, which is a violation."""
        if self.operator == ">":
            return value > limit
        if self.operator == ">=":
            return value >= limit
        return value < limit if self.operator == "<" else value <= limit


def parse_rule(text: str) -> Rule:
    """Return the rule that a text states.

    Raises:
        ValueError: It has another form. The text continues a sentence that names the setting.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(f"must be {FORM}, got {shown(text)}")
    over, base = match["over"] or "any", match["base"] or ""
    _check_word("have {} before its bracket", over, get_args(Over), text)
    _check_word("have a number, {} as its limit", base, get_args(Base), text)
    family, *attack = (match["target"] or match["inner"]).split(".")
    metric = attack.pop() if attack else ""
    if "" in (family, *attack, metric):
        raise ValueError(f"must be {FORM}, got {shown(text)}")
    number = float(match["number"] or match["more"] or 0.0)
    if not math.isfinite(number):
        raise ValueError(f"must have a finite limit, got {shown(text)}")
    return Rule(
        text=" ".join(text.split()),
        over=over,  # type: ignore[arg-type]
        family=family,
        attack=".".join(attack) or None,
        metric=metric,
        operator=match["operator"],  # type: ignore[arg-type]
        base=base,  # type: ignore[arg-type]
        number=number,
    )


def _check_word(rule: str, word: str, valid: tuple[str, ...], text: str) -> None:
    """Refuse a word that the language does not have.

    Raises:
        ValueError: It has not; with the nearest one.
    """
    if word not in valid:
        *first, last = (name for name in valid if name)
        names = f"{', '.join(first)} or {last}"
        hint = nearest(word, [*first, last])
        raise ValueError(f"must {rule.format(names)}, got {shown(text)}; {hint}")
