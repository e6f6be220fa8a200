"""The model room: architectures by name, and whether a user's own one fits.

In: the config's `model`, the shape of an example, the number of classes. Out: an `nn.Module`.
`registry.py` lists the modules; each architecture's own file holds its record `MODEL`.
"""

from fedsim.models.bottleneck import Bottleneck
from fedsim.models.check import CHECKS, check_sizes
from fedsim.models.registry import MODELS, build
from fedsim.models.travels import base_of, digest_of_base
from fedsim.models.trial import (
    batch,
    changed,
    draws,
    mixing_layer,
    moved_state,
    remembers,
    trainable,
)

__all__ = [
    "CHECKS",
    "MODELS",
    "Bottleneck",
    "base_of",
    "batch",
    "build",
    "changed",
    "check_sizes",
    "digest_of_base",
    "draws",
    "mixing_layer",
    "moved_state",
    "remembers",
    "trainable",
]
