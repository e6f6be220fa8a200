"""Defenses that a client applies to its update before upload; add one line here for a new one."""

from collections.abc import Callable, Iterable

from defenses.clip import clip
from defenses.defense import Defense, chain, defend
from defenses.dp_sgd import dp_sgd
from defenses.freeze import freeze
from defenses.gaussian import gaussian
from defenses.laplace import laplace
from defenses.mixup import mixup
from defenses.perturb import perturb
from defenses.promise import Promise
from defenses.prune import prune
from defenses.quantise import quantise
from defenses.sign import sign
from defenses.soteria import soteria
from defenses.sparsify import sparsify
from defenses.vib import vib
from fedsim.config import Part
from fedsim.core.catalog import call, find, with_extensions
from fedsim.core.errors import ConfigError

DEFENSES: dict[str, Callable[..., Defense]] = {
    "clip": clip,
    "dp-sgd": dp_sgd,
    "freeze": freeze,
    "gaussian": gaussian,
    "laplace": laplace,
    "mixup": mixup,
    "perturb": perturb,
    "prune": prune,
    "quantise": quantise,
    "sign": sign,
    "soteria": soteria,
    "sparsify": sparsify,
    "vib": vib,
}

__all__ = [
    "DEFENSES", "Defense", "Promise", "build", "chain", "clip", "defend", "dp_sgd", "freeze",
    "gaussian", "laplace", "links", "mixup", "perturb", "prune", "quantise", "sign", "soteria",
    "sparsify", "vib",
]  # fmt: skip


def build(parts: Iterable[Part]) -> Defense:
    """Return the chain of the defenses that a config lists, in its order.

    Raises:
        ConfigError: A name or an option is unknown, or an option is out of range.
    """
    try:
        return chain(*links(parts))
    except ValueError as error:
        raise ConfigError(f"defense: {error}") from None


def links(parts: Iterable[Part]) -> list[Defense]:
    """Return the defenses that a config lists, each by itself.

    Raises:
        ConfigError: As `build`.
    """
    known = with_extensions(DEFENSES, "defenses")
    built = []
    for part in parts:
        make = find("defense.name", part.name, known)
        built.append(call(f"defense.{part.name}", make, part.options))
        if not isinstance(built[-1], Defense):
            raise ConfigError(f"defense.name: must make a Defense, got {part.name} = {make!r}")
    return built
