"""The attacks that a config lists, with their options, their schedules and their adaptive twins."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from adversary.adapters import ADAPTERS, check_adapter
from adversary.adaptive.labels import TWINS, adaptive
from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.grading.families import FAMILIES
from adversary.over_rounds import over_rounds
from adversary.schedule import scheduled
from fedsim.config import Part
from fedsim.core.catalog import check_options, find, with_extensions
from fedsim.core.errors import ConfigError
from fedsim.core.form import KINDS, Kind
from fedsim.core.records import Joined
from fedsim.core.types import Auxiliary


def available() -> Mapping[str, Attack]:
    """Return every attack by name: fedsim's own, those of packages, and other programs'."""
    return Joined(with_extensions(ATTACKS, "attacks"), ADAPTERS)


def needs(parts: Iterable[Part]) -> set[str]:
    """Return the fields of Auxiliary that the attacks of a config cannot do without.

    Raises:
        ConfigError: A name is unknown.
    """
    return {field for attack in listed(parts) for field in attack.needs}


def listed(parts: Iterable[Part]) -> list[Attack]:
    """Return the attacks that a config lists, as they are without options.

    Raises:
        ConfigError: A name is unknown.
    """
    return [attack for _, attack in _by_name(parts)]


def build(parts: Iterable[Part], auxiliary: Auxiliary) -> list[Attack]:
    """Return the attacks that a config lists, and each one's adaptive twin after it.

    Twins are for an adversary that knows the clients' defense and has auxiliary data.

    Raises:
        ConfigError: A name or an option is unknown, or the adversary lacks what one needs.
    """
    attacks = []
    for part, plain in _by_name(parts):
        attack = _with_options(part, plain, auxiliary)
        attacks.append(over_rounds(attack))
        if _has_adaptive(attack, auxiliary):
            attacks.append(over_rounds(adaptive(attack)))
    return attacks


def kinds_of(attack: Attack) -> tuple[Kind, ...]:
    """Return the kinds of models that an attack works on: its own, or its family's."""
    return FAMILIES[attack.family].kinds if attack.kinds is None else attack.kinds


def _by_name(parts: Iterable[Part]) -> Iterator[tuple[Part, Attack]]:
    attacks = available()
    for part in parts:
        check_adapter("attack.name", part.name)
        attack = find("attack.name", part.name, attacks)
        if not isinstance(attack, Attack):
            raise ConfigError(f"attack.name: must be an Attack, got {part.name} = {attack!r}")
        yield part, attack


def _with_options(part: Part, plain: Attack, auxiliary: Auxiliary) -> Attack:
    for field in plain.needs:
        if getattr(auxiliary, field) is None:
            hint = "; a data set declares it by attributes and numbers" if field == "schema" else ""
            raise ConfigError(f"attack.{part.name}: needs auxiliary {field}, got none{hint}")
    find(f"attack.{part.name}.family", plain.family, FAMILIES)
    kinds = kinds_of(plain)
    if auxiliary.kind not in kinds:
        able = " or ".join(KINDS[kind] for kind in kinds)
        raise ConfigError(
            f"attack.{part.name}: must attack a model of {able}, got one of {KINDS[auxiliary.kind]}"
        )
    planned, unchecked = scheduled(f"attack.{part.name}", plain, part.options)
    options = check_options(f"attack.{part.name}", plain.infer, unchecked)
    infer_all = None if plain.infer_all is None else partial(plain.infer_all, **options)
    # In the ledger it goes by the name that the config knows it by.
    infer = partial(plain.infer, **options)
    return replace(planned, name=part.name, infer=infer, infer_all=infer_all)


def _has_adaptive(attack: Attack, auxiliary: Auxiliary) -> bool:
    required = (auxiliary.defense, auxiliary.inputs, auxiliary.labels)
    able = attack.family in TWINS and attack.has_twin and not attack.baseline
    return able and all(value is not None for value in required)
