"""What fedsim accepts: the rules of every door, from the lists that the doors check by."""

import importlib
import pkgutil
from collections.abc import Iterator

from texts import docstring, table

from fedsim.core.accepts import Rule

PACKAGES = ("fedsim", "clients", "strategies", "adversary", "defenses")


def page() -> str:
    """Return a table of rules for each kind of part."""
    parts: dict[str, list[Rule]] = {}
    for rule in dict.fromkeys(rules()):  # a list may be imported by name
        parts.setdefault(rule.part, []).append(rule)
    return "\n\n".join(
        f"## {part.capitalize()}\n\n{section(parts[part])}" for part in sorted(parts)
    )


def rules() -> Iterator[Rule]:
    """Yield the rules of all modules that have a list `CHECKS`."""
    for package in PACKAGES:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                yield from getattr(importlib.import_module(module.name), "CHECKS", ())


def section(some: list[Rule]) -> str:
    """Return the table of one kind of part."""
    rows = [(rule.field, text(rule.rule), rule.otherwise or "refused") for rule in some]
    return table(("field", "rule", "otherwise"), rows)


def text(rule: str) -> str:
    """Return a rule with the braces that Markdown's attributes would take."""
    return docstring(rule).replace("{", "\\{")
