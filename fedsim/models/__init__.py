"""The model room: architectures by name, and whether a user's own one fits.

In: the config's `model`, the shape of an example, the number of classes. Out: an `nn.Module`.
`registry.py` lists the modules; each architecture's own file holds its record `MODEL`.
"""

from fedsim.models.bottleneck import Bottleneck
from fedsim.models.check import mixing_layer, remembering_layer, trainable
from fedsim.models.registry import MODELS, build

__all__ = ["MODELS", "Bottleneck", "build", "mixing_layer", "remembering_layer", "trainable"]
