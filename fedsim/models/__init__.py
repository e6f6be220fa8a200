"""The model room: architectures by name, and whether a user's own one fits.

In: the config's `model`, the shape of an example, the number of classes. Out: an `nn.Module`.
"""

from fedsim.models.build import (
    MODELS,
    Bottleneck,
    build,
    cnn,
    lenet,
    lenet5,
    mixing_layer,
    mlp,
    remembering_layer,
    resnet18,
    rgap_cnn6,
    trainable,
)

__all__ = [
    "MODELS",
    "Bottleneck",
    "build",
    "cnn",
    "lenet",
    "lenet5",
    "mixing_layer",
    "mlp",
    "remembering_layer",
    "resnet18",
    "rgap_cnn6",
    "trainable",
]
