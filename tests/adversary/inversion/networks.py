"""The networks of the reconstruction papers, by name; plain builders for tests."""

import torch
from torch import nn

from fedsim.core.rng import global_stream

Conv = tuple[int, int, int, int, int]  # in, out, kernel, stride, padding
SIZE = 32
DEEP: tuple[Conv, ...] = ((36, 36, 3, 1, 1), (36, 64, 3, 2, 1), (64, 128, 3, 1, 1))
LENET: tuple[Conv, ...] = ((3, 12, 5, 2, 2), (12, 12, 5, 2, 2), (12, 12, 5, 1, 2))
CONVS: dict[str, tuple[Conv, ...]] = {
    "cnn2_c0": ((3, 1, 3, 2, 0),),
    "cnn2_c1": ((3, 6, 3, 1, 0),),
    "cnn2_c2": ((3, 6, 4, 2, 0),),
    "cnn2_c4": ((3, 1, 3, 1, 0),),
    "cnn2_c5": ((3, 3, 3, 1, 1),),
    "cnn2_c6": ((3, 12, 5, 2, 0),),
    "cnn3_c1": ((3, 6, 3, 1, 0), (6, 3, 4, 2, 0)),
    "cnn3_c2": ((3, 6, 4, 2, 0), (6, 3, 3, 2, 0)),
    "cnn3_c3": ((3, 6, 3, 1, 0), (6, 9, 3, 1, 0)),
    "cnn3_c4": ((3, 1, 3, 1, 0), (1, 6, 3, 1, 0)),
    "cnn3_c5": ((3, 12, 5, 1, 1), (12, 12, 5, 2, 2)),
    "cnn3_c8": ((3, 9, 3, 1, 0), (9, 3, 4, 2, 0)),
    "cnn3_c9": ((3, 5, 3, 1, 0), (5, 7, 3, 1, 0)),
    "cnn4_c1": ((3, 6, 3, 1, 0), (6, 5, 4, 2, 0), (5, 3, 4, 1, 0)),
    "cnn4_c2": ((3, 16, 5, 1, 0), (16, 6, 5, 2, 0), (6, 32, 5, 1, 2)),
    "cnn4_c3": ((3, 6, 5, 1, 0), (6, 16, 5, 2, 0), (16, 16, 5, 1, 2)),
    "lenet": LENET,
    "cnn6": ((3, 12, 4, 2, 2), (12, 36, 3, 2, 1), (36, 36, 3, 1, 1), *DEEP),
    "cnn6-d": ((3, 12, 4, 2, 2), (12, 20, 3, 2, 1), (20, 36, 3, 1, 1), *DEEP),
}
# c(M) of each.
METRIC = {
    "cnn2_c0": -2821, "cnn2_c1": 0, "cnn2_c2": -1470, "cnn2_c4": -2146, "cnn2_c5": 0,
    "cnn2_c6": -189, "cnn3_c1": -2266.5, "cnn3_c2": -1995, "cnn3_c3": 0, "cnn3_c4": -2146,
    "cnn3_c5": -2322, "cnn3_c8": -3544.5, "cnn3_c9": 0, "cnn4_c1": -2772, "cnn4_c2": -6211,
    "cnn4_c3": -220, "lenet": 0, "cnn6": 0,
    "cnn6-d": -700 / 3,  # 280 open in its second layer; −73 counts rows alone, and misses 192
}  # fmt: skip


def named(
    name: str, *, seed: int = 0, num_classes: int = 10, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    """Return a network of the papers for 3×32×32 images, with a linear `head` with bias.

    Tanh and torch's own initial weights, without biases of convolutions; `lenet` has sigmoids,
    biases, and everything from U(−0.5, 0.5), and the `cnn6` leaky ReLUs of slope 0.2.
    """
    lenet = name == "lenet"
    activation = nn.Sigmoid if lenet else nn.Tanh
    if name.startswith("cnn6"):
        activation = lambda: nn.LeakyReLU(0.2)
    with global_stream(seed, "network", name):
        layers: list[nn.Module] = []
        for fan_in, fan_out, kernel, stride, padding in CONVS[name]:
            layers += [nn.Conv2d(fan_in, fan_out, kernel, stride, padding, bias=lenet)]
            layers += [activation()]
        layers += [nn.Flatten()]
        flat = nn.Sequential(*layers)(torch.zeros(1, 3, SIZE, SIZE)).shape[1]
        model = nn.Sequential(*layers)
        model.add_module("head", nn.Linear(flat, num_classes))
        if lenet:
            for parameter in model.parameters():
                nn.init.uniform_(parameter, -0.5, 0.5)
    return model.to(dtype)
