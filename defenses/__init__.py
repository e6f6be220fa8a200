"""Defenses that a client applies to its update before upload; add one line here for a new one."""

from collections.abc import Callable, Iterable

from defenses.clip import clip
from defenses.defense import Defense, chain, defend
from defenses.gaussian import gaussian
from fedsim.catalog import call, find, with_extensions
from fedsim.config import Part

DEFENSES: dict[str, Callable[..., Defense]] = {
    "clip": clip,
    "gaussian": gaussian,
}

__all__ = ["DEFENSES", "Defense", "build", "chain", "clip", "defend", "gaussian"]


def build(parts: Iterable[Part]) -> Defense:
    """Return the chain of the defenses that a config lists, in its order.

    Raises:
        ConfigError: A name or an option is unknown, or an option is out of range.
    """
    known = with_extensions(DEFENSES, "defenses")
    return chain(
        *(
            call(f"defense.{part.name}", find("defense.name", part.name, known), part.options)
            for part in parts
        )
    )
