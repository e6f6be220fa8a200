"""How strong each setting's defense is: the one number in which settings of a defense differ."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from defenses.registry import DEFENSES, all_options
from fedsim.config import Cell, Part


class Strength(NamedTuple):
    """A setting's defense.

    Attributes:
        defense: The names of its links; `none` without any.
        option: What settings of this defense differ in; None where there is no such number.
        value: Of that option.
    """

    defense: str
    option: str | None
    value: float | None


def strengths(cells: Iterable[Cell]) -> dict[str, Strength]:
    """Return each setting's defense and its strength, by the setting's name."""
    kinds: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        kinds[" → ".join(part.name for part in cell.config.defense) or "none"].append(cell)
    return {
        cell.name: strength
        for kind, alike in kinds.items()
        for cell, strength in zip(alike, _of_one_kind(kind, alike), strict=True)
    }


def _of_one_kind(kind: str, cells: Sequence[Cell]) -> list[Strength]:
    """Return the strengths of settings whose defenses have the same names."""
    tables = [_numbers(cell.config.defense) for cell in cells]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    differing = [key for key in shared if len({table[key] for table in tables}) > 1]
    named = [key for key in shared if _is_given(key, cells[0].config.defense)]
    key = next(iter(differing or named), None)
    if key is None:
        return [Strength(kind, None, None) for _ in cells]
    return [Strength(kind, key[1], table[key]) for table in tables]


def _numbers(parts: Sequence[Part]) -> Mapping[tuple[int, str], float]:
    """Return every numeric option of a chain, by the link's place and the option's name.

    With its defaults where the link is fedsim's own.
    """
    return {
        (place, key): float(value)
        for place, part in enumerate(parts)
        for key, value in (all_options(part) if part.name in DEFENSES else part.options).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _is_given(key: tuple[int, str], parts: Sequence[Part]) -> bool:
    return key[1] in parts[key[0]].options
