"""The names in rules: a family, attack or metric that does not exist is a typo, and refused."""

from collections.abc import Iterable, Mapping

from adversary.attacks import ATTACKS
from adversary.auditing import METHODS
from adversary.auditing.finding import METRICS
from adversary.auditing.in_rounds import IN_ROUNDS
from adversary.games import GAMES
from adversary.grading.families import FAMILIES
from adversary.grading.selection import available
from fedsim.check.of_tables import BOUND
from fedsim.config import Rule
from fedsim.core.errors import ConfigError, nearest
from fedsim.core.units import scale_of

AUDIT, GAME, TEST = "audit", "game", "test"
PARTS = {AUDIT: "method or canary", GAME: "game"}
OVERS = {
    AUDIT: ("any", "max", "last"),
    GAME: ("any", "max"),
    TEST: ("any", "max", "mean", "last"),
}
GAME_METRICS = (
    "accuracy", "auroc", "advantage", "tpr_1", "tpr_01", "information", "cross_entropy",
)  # fmt: skip

Names = Mapping[str, Iterable[str]]
"""Family → names of attacks, audits' canaries or games that a run holds."""


def check_names(
    key: str, rules: Iterable[Rule], names: Names | None = None, metrics: Names | None = None
) -> None:
    """Refuse a rule about something that does not exist.

    Args:
        key: Who said so: the setting or the flag.
        rules: The rules.
        names: What a run's tables hold beyond fedsim's own.
        metrics: Family → metrics in a run's tables.

    Raises:
        ConfigError: There is such a rule; with the nearest name.
    """
    families = {*FAMILIES, AUDIT, GAME, TEST, *(names or {})}
    for rule in rules:
        _check(key, rule, "family", rule.family, families)
        measured = {*_metrics(rule.family), *(metrics or {}).get(rule.family, ())}
        _check(key, rule, "metric", rule.metric, measured)
        if rule.over not in OVERS.get(rule.family, (rule.over,)):
            valid = ", ".join(OVERS[rule.family])
            raise ConfigError(f"{key}: must take {valid} of {rule.family}, got '{rule.text}'")
        _check_limit(key, rule)
        if rule.attack is not None:
            _check_attack(key, rule, set((names or {}).get(rule.family, ())))


def _check_limit(key: str, rule: Rule) -> None:
    if rule.base == "claim" and (rule.family, rule.metric) != (AUDIT, BOUND):
        raise ConfigError(
            f"{key}: must compare a claim with {AUDIT}.{BOUND}, because nothing else refutes one, "
            f"got '{rule.text}'"
        )
    if rule.base == "blind" and rule.family in (AUDIT, TEST):
        raise ConfigError(
            f"{key}: must have a number as its limit, {rule.family} has no blind guess, "
            f"got '{rule.text}'"
        )
    measured = rule.family != AUDIT and rule.metric in _metrics(rule.family)
    if measured and rule.number > scale_of(rule.metric).high == 1:
        raise ConfigError(
            f"{key}: must have a limit of at most 1, because {rule.metric} is no percentage and at "
            f"most 1, got '{rule.text}'"
        )


def _check_attack(key: str, rule: Rule, names: set[str]) -> None:
    """Refuse an attack that is neither fedsim's, nor a package's, nor the run's."""
    if rule.family == TEST:
        raise ConfigError(f"{key}: must be {TEST}.METRIC, got '{rule.text}'")
    offered = _attacks(rule.family)
    if rule.attack not in offered | names and rule.family in FAMILIES:
        offered |= {name for name, attack in available().items() if attack.family == rule.family}
    _check(
        key,
        rule,
        PARTS.get(rule.family, f"{rule.family} attack"),
        str(rule.attack),
        offered | names,
    )


def _attacks(family: str) -> set[str]:
    if family == AUDIT:
        return {*IN_ROUNDS, *METHODS}
    if family == GAME:
        return set(GAMES)
    return {name for name, attack in ATTACKS.items() if attack.family == family}


def _metrics(family: str) -> set[str]:
    if family in FAMILIES:
        return {*FAMILIES[family].ranked}
    others = {AUDIT: METRICS.values(), GAME: GAME_METRICS, TEST: ("accuracy", "loss", "perplexity")}
    return set(others.get(family, ()))


def _check(key: str, rule: Rule, what: str, name: str, valid: Iterable[str]) -> None:
    if name not in valid:
        raise ConfigError(
            f"{key}: '{rule.text}' must have a known {what}, got '{name}'; {nearest(name, valid)}"
        )
