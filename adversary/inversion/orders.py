"""Which steps a client's examples are used in: its orders, and those next to one.

A client puts its examples into a new order in every epoch, which the server does not see. There are
(N!/(B!)^(N/B))^E of them. The loss of a step is linear in the examples' shares of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from fedsim.core.types import LocalTraining


@dataclass(frozen=True, eq=False)
class Uses:
    """Which steps a client's examples may be used in.

    An order is a tensor (epochs, steps of one, examples) of zeros and ones.

    Attributes:
        count: Examples.
        local: The protocol.
    """

    count: int
    local: LocalTraining

    @cached_property
    def sizes(self) -> Float[Tensor, " steps"]:
        """Examples of each step of an epoch."""
        left = torch.arange(self.count, 0, -self.local.batch_size)
        return left.clamp(max=self.local.batch_size).double()

    def drawn(self, generator: Generator) -> Float[Tensor, "epochs steps n"]:
        """Return an order, each as likely as any other."""
        places = torch.arange(len(self.sizes)).repeat_interleave(self.sizes.long())
        order = torch.zeros(self.local.epochs, len(self.sizes), self.count).double()
        for way in order:
            way[places, torch.randperm(self.count, generator=generator)] = 1
        return order

    def shares(self, orders: Float[Tensor, "*rows epochs steps n"]) -> Float[Tensor, "*rows all n"]:
        """Return the shares of the loss of all steps."""
        return (orders / self.sizes[:, None]).flatten(-3, -2)

    def nearby(
        self, order: Float[Tensor, "epochs steps n"]
    ) -> list[tuple[int, Float[Tensor, "steps n"]]]:
        """Return an epoch and its new order, for all orders with two examples exchanged there."""
        return [(epoch, way) for epoch, old in enumerate(order) for way in _swapped(old)]


def _swapped(way: Float[Tensor, "steps n"]) -> Iterator[Float[Tensor, "steps n"]]:
    """Yield the ways in which two examples of different steps change places."""
    steps = way.argmax(dim=0)
    for a, b in combinations(range(way.shape[1]), 2):
        if steps[a] != steps[b]:
            other = way.clone()
            other[:, [a, b]] = way[:, [b, a]]
            yield other
