"""Random projections of what is as large as a model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class Reduce:
    """A random projection of each layer, by hashing: bounded memory whatever the model's size.

    Every entry is added, with a random sign, to one of the layer's cells; inner products keep their
    expectation. K. Weinberger, A. Dasgupta, J. Langford, A. Smola, J. Attenberg, "Feature hashing
    for large scale multitask learning", ICML 2009.
    """

    def __init__(self, sizes: Sequence[int], cells: int, generator: torch.Generator) -> None:
        """Share `cells` among layers of these sizes, by the square root of the size."""
        weights = [size**0.5 for size in sizes]
        share = [cells * weight / sum(weights) for weight in weights]
        places, start = [], 0
        for size, target in zip(sizes, share, strict=True):
            width = min(size, max(1, int(target)))
            direct = torch.arange(size)
            hashed = torch.randint(width, (size,), generator=generator)
            places.append(start + (direct if width == size else hashed))
            start += width
        self.cells, self.place = start, torch.cat(places)
        self.sign = torch.randint(2, (sum(sizes),), generator=generator).float().mul_(2).sub_(1)

    def __call__(self, flat: Float[Tensor, "n size"]) -> Float[Tensor, "n cells"]:
        """Return the projections of flat gradients."""
        return torch.zeros(len(flat), self.cells).index_add_(1, self.place, flat * self.sign)
