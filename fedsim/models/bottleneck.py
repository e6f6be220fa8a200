"""A variational bottleneck before the head, for any model of this room that offers one."""

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """A variational bottleneck: features are blurred while training, by as much as is learned.

    Source: Alemi, Fischer, Dillon, Murphy, "Deep Variational Information Bottleneck", ICLR 2017;
    before the head as in Scheliga, Mäder, Seeland, "PRECODE", WACV 2022. `defenses.vib` adds the
    price of information to the loss; without it nothing keeps the blur from vanishing.

    Args:
        features: Width of what comes in.
        size: Width of the code that goes out.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, size)
        self.log_variance = nn.Linear(features, size)

    def forward(self, h: Tensor) -> Tensor:
        """Return a draw from N(mean, variance) while training, and the mean otherwise."""
        mean, log_variance = self.mean(h), self.log_variance(h)
        if not self.training:
            return mean
        return mean + (log_variance / 2).exp() * torch.randn_like(mean)
