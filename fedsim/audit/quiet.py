"""A chain of defenses with its options, and the same without noise."""

from collections.abc import Sequence

from defenses import Defense, build
from defenses.registry import all_options
from fedsim.config import Part
from fedsim.core.errors import ConfigError

NOISE = ("noise", "std", "scale")  # options that say how much noise a defense adds


def quieted(parts: Sequence[Part]) -> Defense | None:
    """Return the chain with every noise at 0; None if a link does not allow it."""
    quiet = []
    for part in parts:
        off = {name: 0.0 for name in NOISE if name in all_options(part)}
        quiet.append(Part(name=part.name, **{**part.options, **off}))
    try:
        return build(quiet)
    except ConfigError:
        return None
